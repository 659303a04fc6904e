"""What a terminal would obey: text that others wrote is never shown with it."""

# For a character class of a regular expression. Tabs and newlines do no harm; who keeps single lines adds the newline.
CONTROLS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1
    "\u2028\u2029"  # lines and paragraphs, to some
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of text around
)
