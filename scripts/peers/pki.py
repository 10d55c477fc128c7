"""A certificate authority for a test, and a certificate for 127.0.0.1 each for the service and its peer."""

from pathlib import Path

from proc import command

DAYS = 2
ADDRESS = "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost"


class Pki:
    """`ca`, and `cert(name)` with the paths of a certificate and its key."""

    def __init__(self, directory):
        self.dir = Path(directory) / "pki"
        self.dir.mkdir()
        self.dir.chmod(0o755)
        self.ca, self.ca_key = self.dir / "ca.crt", self.dir / "ca.key"
        self._openssl(
            "req", "-x509", "-subj", "/CN=Test authority", "-days", DAYS, "-keyout", self.ca_key, "-out", self.ca, "-nodes", *EC
        )

    @staticmethod
    def _openssl(*args):
        command(["openssl", *args])

    def cert(self, name):
        cert, key, asked, more = (self.dir / f"{name}.{end}" for end in ("crt", "key", "csr", "ext"))
        more.write_text(ADDRESS + "\nextendedKeyUsage=serverAuth,clientAuth\n")
        self._openssl("req", "-new", "-subj", f"/CN={name}", "-keyout", key, "-out", asked, "-nodes", *EC)
        signer = ("-CA", self.ca, "-CAkey", self.ca_key, "-CAcreateserial", "-days", DAYS)
        self._openssl("x509", "-req", "-in", asked, *signer, "-extfile", more, "-out", cert)
        key.chmod(0o600)
        return cert, key


EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
