"""The smallest provider as a program: the text of ``provider.py`` with a key of its own."""

import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.topologies import certificates


@cache
def program() -> str:
    """Return the text of a provider, which Terraform starts for its schema."""
    with tempfile.TemporaryDirectory() as directory:
        files = certificates(Path(directory))
        pem = files["ca.key"].read_text() + files["ca.pem"].read_text()
    text = Path(__file__).with_name("provider.py").read_text()
    return f"#!{sys.executable} -SE\n" + text.replace('PEM = ""', f'PEM = """{pem}"""')
