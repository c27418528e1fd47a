//! Signatures over an export, made with the key the gateway shows to the broker.
//!
//! Owns the choice of scheme by the key and the check against a certificate. Refuses to judge whether a certificate is to be trusted: who
//! verifies names the one they expect, or compares the fingerprint that is printed.

use std::path::Path;

use anyhow::{Context, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gengfu_contract::export::Signature;
use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

/// Schemes in order of preference; the key takes the first that is its own.
const SCHEMES: [(SignatureScheme, &str); 4] = [
    (SignatureScheme::ECDSA_NISTP256_SHA256, "ECDSA_NISTP256_SHA256"),
    (SignatureScheme::ECDSA_NISTP384_SHA384, "ECDSA_NISTP384_SHA384"),
    (SignatureScheme::ED25519, "ED25519"),
    (SignatureScheme::RSA_PSS_SHA256, "RSA_PSS_SHA256"),
];

/// Signs `bytes` with the key of a certificate, both PEM files.
pub(super) fn sign(bytes: &[u8], certificate: &Path, key: &Path) -> anyhow::Result<Signature> {
    let leaf = leaf(certificate)?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| anyhow!("{}: {error}", key.display()))?;
    let signing = rustls::crypto::ring::sign::any_supported_type(&key_der)
        .map_err(|error| anyhow!("{}: {error}", key.display()))?;
    let schemes: Vec<SignatureScheme> = SCHEMES.iter().map(|(scheme, _)| *scheme).collect();
    let signer = signing.choose_scheme(&schemes).context("the key is of a kind that cannot sign an export")?;
    let name = SCHEMES.iter().find(|(scheme, _)| *scheme == signer.scheme()).map(|(_, name)| *name).unwrap_or_default();
    let value = signer.sign(bytes).map_err(|error| anyhow!("sign: {error}"))?;
    let signature =
        Signature { scheme: name.to_owned(), certificate: STANDARD.encode(&leaf), value: STANDARD.encode(value) };
    // A certificate and a key that do not belong together are found now, not when somebody needs the proof.
    check(bytes, &signature, None)?
        .map_err(|why| anyhow!("{} and {} do not belong together: {why}", certificate.display(), key.display()))?;
    Ok(signature)
}

/// Checks a signature: `Ok(Ok)` with what to say of it, `Ok(Err)` with what is wrong.
pub(super) fn check(
    bytes: &[u8],
    signature: &Signature,
    expected: Option<&Path>,
) -> anyhow::Result<Result<String, String>> {
    let (Ok(certificate), Ok(value)) = (STANDARD.decode(&signature.certificate), STANDARD.decode(&signature.value))
    else {
        return Ok(Err("it is not base64".into()));
    };
    if let Some(path) = expected
        && leaf(path)?.as_ref() != certificate.as_slice()
    {
        return Ok(Err(format!("it is made with another certificate than {}", path.display())));
    }
    let Some((scheme, _)) = SCHEMES.iter().find(|(_, name)| *name == signature.scheme) else {
        return Ok(Err(format!("scheme {} is unknown", signature.scheme)));
    };
    let fingerprint = hex::encode(Sha256::digest(&certificate));
    let der = CertificateDer::from(certificate);
    let parsed = match webpki::EndEntityCert::try_from(&der) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Err(format!("its certificate cannot be read: {error}"))),
    };
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let mut fitting =
        algorithms.mapping.iter().filter(|(one, _)| one == scheme).flat_map(|(_, several)| several.iter());
    if fitting.any(|algorithm| parsed.verify_signature(*algorithm, bytes, &value).is_ok()) {
        return Ok(Ok(format!("signed by the certificate with SHA-256 {fingerprint}")));
    }
    Ok(Err("it does not fit the statement".into()))
}

fn leaf(path: &Path) -> anyhow::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(path).map_err(|error| anyhow!("{}: {error}", path.display()))
}
