"""Removes from the image what the service never reads, and prints the sizes of what is left.

python3 slim.py SITE_PACKAGES            remove, then print (a step of the Dockerfile)
python3 slim.py --sizes SITE_PACKAGES    print alone
"""

import shutil
import sys
from pathlib import Path

MB = 10**6
LISTED = 12


def unread(packages: Path) -> list[Path]:
    """Return what is never read: tests of packages, headers and static libraries of torch and CUDA."""
    headers = [packages / "torch" / "include", packages / "torch" / "share", *packages.glob("nvidia/*/include")]
    return [*(each for each in packages.rglob("tests") if each.is_dir()), *headers, *packages.rglob("*.a")]


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(each.stat().st_size for each in files if each.is_file() and not each.is_symlink())


def main() -> None:
    """Run the command line."""
    packages = Path(sys.argv[-1])
    if "--sizes" not in sys.argv:
        for path in unread(packages):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    sizes = sorted(((size(each), each.name) for each in packages.iterdir()), reverse=True)
    print(f"{sum(amount for amount, _ in sizes) / MB:8,.0f} MB in {len(sizes)} files and folders, of these:")
    for amount, name in sizes[:LISTED]:
        print(f"{amount / MB:8,.0f} MB  {name}")


main()
