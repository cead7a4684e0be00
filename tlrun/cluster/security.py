"""TLS certificates of one cluster, without which nobody can talk to its scheduler and workers.

A Dask scheduler runs any code that it is sent. Without certificates, any process that reaches its port, of
any user of the machine, could run code as the user who started it. New certificates are made for every
cluster and stay in memory; jobs of a queueing system read them from files that only the user can read.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from catalogs.errors import InputError

_NAME = "template-learning"
_FOLDER = ".certificates-"
_DAYS = 365  # longer than any cluster lives


def temporary() -> Any:
    """Make the certificates of a cluster.

    As ``distributed.Security.temporary``, but valid from a day ago, because the clocks of nodes differ.

    Returns
    -------
    distributed.Security
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from distributed import Security

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM).decode()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    roles = {
        f"tls_{role}_{part}": text
        for role in ("client", "scheduler", "worker")
        for part, text in (("cert", public), ("key", secret))
    }
    return Security(require_encryption=True, tls_ca_file=public, **roles)


def to_be_shown() -> Any:
    """Make a placeholder for the certificates in a job script that is only shown."""
    from distributed import Security

    return Security(
        require_encryption=True, tls_ca_file="CA", tls_worker_cert="CERTIFICATE", tls_worker_key="KEY"
    )


@contextmanager
def folder_for_jobs(logs: str) -> Iterator[str]:
    """Make a folder for the certificates of jobs on other machines, which only the user can enter.

    Parameters
    ----------
    logs
        Folder of the jobs' output, shared by all machines. Folders left by programs that were killed are
        removed.

    Raises
    ------
    InputError
        If nothing can be written there.
    """
    top = Path(os.path.expandvars(logs)).expanduser().absolute()
    try:
        top.mkdir(parents=True, exist_ok=True)
        for left in top.glob(f"{_FOLDER}{socket.gethostname()}-*"):
            if not Path(f"/proc/{left.name.rsplit('-', 2)[1]}").exists():
                shutil.rmtree(left, ignore_errors=True)
        folder = top / f"{_FOLDER}{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise InputError(f"logs: {top} cannot be written ({error.strerror}); name another folder") from error
    try:
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
