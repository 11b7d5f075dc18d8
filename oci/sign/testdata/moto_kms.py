"""moto's AWS server, with the one thing that its KMS lacks (its documentation says so): MessageType DIGEST, which
sigstore's client always uses. Only SHA-256 digests are signed here."""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from moto.kms import utils
from moto.server import main


def sign_digest(self, message, signing_algorithm):
    utils.validate_signing_algorithm(signing_algorithm, self.valid_signing_algorithms)
    return self.private_key.sign(message, ec.ECDSA(Prehashed(hashes.SHA256())))


utils.ECDSAPrivateKey.sign = sign_digest
main()
