"""What outputs are called: paths and URLs."""

from pathlib import Path

from audiomixer.outputs.base import NamedOutput, redacted
from audiomixer.outputs.bucket import SCHEMES as BUCKETS
from audiomixer.outputs.bucket_file import BucketFile
from audiomixer.outputs.directory import DirectoryOutput
from audiomixer.outputs.file import FileOutput
from audiomixer.outputs.muxer import FILES
from audiomixer.outputs.push import SCHEMES, PushOutput
from audiomixer.outputs.text import SUFFIXES, TextOutput
from audiomixer.outputs.whip import SCHEMES as WHIP
from audiomixer.outputs.whip import WhipOutput


def open_output(target: str, bitrate: int, *, rotate: float | None = None) -> NamedOutput:
    """The output that a path or URL names.

    Args:
        target: A path that ends in one of `FILES` or `SUFFIXES`, or in / for HLS; or a URL, of a bucket with such a
            path, but `SUFFIXES`.
        bitrate: In kbit/s.
        rotate: Seconds after which a new file is begun, for recordings.

    Raises:
        ValueError: There is none.
    """
    scheme = target.partition("://")[0] if "://" in target else ""
    if scheme in SCHEMES:
        return PushOutput(target, bitrate)
    if scheme in WHIP:
        return WhipOutput(target, bitrate)
    is_object = scheme in BUCKETS
    suffix = Path(target).suffix.lower() if is_object or not scheme else ""
    if (is_object or not scheme) and target.endswith("/") and target.strip("/"):
        return DirectoryOutput(target, bitrate)
    if suffix in FILES:
        return (BucketFile if is_object else FileOutput)(target, bitrate, rotate)
    if suffix in SUFFIXES and not is_object:
        return TextOutput(target)
    files = ", ".join(f"*{known}" for known in (*FILES, *SUFFIXES))
    schemes = ", ".join(f"{known}://" for known in (*SCHEMES, *WHIP, *BUCKETS))
    raise ValueError(
        f"output: expected {files}, a directory ending in /, or a URL of {schemes}; got {redacted(target)!r}"
    )
