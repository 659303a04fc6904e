"""Puts the programs that the build argument MORE_VERSIONS lists into DIRECTORY/VERSION/PROGRAM.

Each entry is PROGRAM/VERSION@sha256:HEX, as in terraform/1.9.8@sha256:...; entries are separated by spaces. An archive
with another checksum ends the build.

Usage: fetch_versions.py DIRECTORY
"""

import hashlib
import io
import os
import re
import sys
import urllib.request
import zipfile
from pathlib import Path

ENTRY = re.compile(r"(terraform|tofu)/(\d+\.\d+\.\d+[0-9A-Za-z.+-]*)@sha256:([0-9a-f]{64})")


def address(program: str, version: str) -> str:
    """Return where the archive of a program is, for the architecture of this build."""
    tag = f"v{version}" if program == "tofu" else version
    mirror = os.environ[f"{program.upper()}_MIRROR"].rstrip("/")
    return f"{mirror}/{tag}/{program}_{version}_linux_{os.environ['TARGETARCH']}.zip"


def fetch(entry: str, directory: Path) -> None:
    """Fetch one program. Ends the build where the entry is invalid, or the archive is not the one that it names."""
    found = ENTRY.fullmatch(entry)
    if found is None:
        sys.exit(f"MORE_VERSIONS: {entry!r} is not PROGRAM/VERSION@sha256:HEX, as in terraform/1.9.8@sha256:0123...")
    program, version, checksum = found.groups()
    with urllib.request.urlopen(address(program, version)) as answer:  # noqa: S310 - what is fetched has its checksum
        archive = answer.read()
    actual = hashlib.sha256(archive).hexdigest()
    if actual != checksum:
        sys.exit(f"MORE_VERSIONS: {address(program, version)} has the checksum sha256:{actual}, not {entry}")
    path = directory / version / program
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zipfile.ZipFile(io.BytesIO(archive)).read(program))
    path.chmod(0o755)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    for each in os.environ.get("MORE_VERSIONS", "").split():
        fetch(each, Path(sys.argv[1]))
