//! Goal: a certificate becomes ours only when it fits in everything, and each misfit has its own error. Method: real certificates from
//! throw-away authorities.

use super::super::testing::{Authority, NOW};
use super::*;

const NAME: &str = "jinding.block-7";

fn known(at: &str) -> Reading {
    Reading::Known(at.parse().unwrap())
}

fn check(
    key: &PrivateKey,
    given: &[CertificateDer<'static>],
    root: &Authority,
    now: Reading,
) -> Result<(Vec<CertificateDer<'static>>, Facts), CertificateError> {
    Wanted { key, common_name: NAME, roots: &[root.der()], roots_origin: "ca.pem", now }.check(given)
}

#[test]
fn a_certificate_that_fits_in_everything_is_taken_whatever_the_order_around_it() {
    let (ca, key) = (Authority::new("ca"), PrivateKey::generate().unwrap());
    let own = ca.client(&key, NAME, NOW);
    let (chain, facts) = check(&key, &[ca.der(), own.clone()], &ca, known("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(chain, [own], "ours first, the authority itself is not shown");
    assert_eq!((facts.common_name.as_str(), facts.issuer.as_str()), (NAME, "CN=ca"));
    assert_eq!(facts.not_after_at, "2048-01-01T00:00:00Z".parse().unwrap());
    let text = to_pem(&chain);
    assert_eq!(from_pem(text.as_bytes(), "x").unwrap(), chain);
}

#[test]
fn each_misfit_is_told_by_its_own_error() {
    let (ca, key) = (Authority::new("ca"), PrivateKey::generate().unwrap());
    let now = known("2026-01-01T00:00:00Z");
    let other = PrivateKey::generate().unwrap();
    let says = |given, now| check(&key, &[given], &ca, now).unwrap_err();
    assert!(matches!(says(ca.client(&other, NAME, NOW), now), CertificateError::OtherKey));
    assert!(matches!(says(ca.client(&key, "jinding.block-8", NOW), now), CertificateError::OtherName { .. }));
    assert!(matches!(says(ca.client(&key, NAME, (2001, 2002)), now), CertificateError::Expired(_)));
    assert!(matches!(says(ca.client(&key, NAME, (2030, 2031)), now), CertificateError::NotYet(_)));
    let foreign = Authority::new("ca").client(&key, NAME, NOW);
    assert!(matches!(says(foreign, now), CertificateError::OtherAuthority { .. }));
    assert!(matches!(check(&key, &[], &ca, now), Err(CertificateError::OtherKey)));
}

#[test]
fn an_unset_clock_refuses_only_what_had_ended_before_it() {
    let (ca, key) = (Authority::new("ca"), PrivateKey::generate().unwrap());
    let at_least = Reading::AtLeast("2026-01-01T00:00:00Z".parse().unwrap());
    check(&key, &[ca.client(&key, NAME, (2030, 2031))], &ca, at_least).unwrap();
    let error = check(&key, &[ca.client(&key, NAME, (2024, 2025))], &ca, at_least).unwrap_err();
    assert!(matches!(error, CertificateError::Expired(_)), "{error}");
}

/// `openssl crl2pkcs7 -nocrl` around one certificate, written by hand: RFC 5652 without signers.
fn bag(certificate: &[u8]) -> Vec<u8> {
    fn element(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        match body.len() {
            n @ 0..=127 => out.push(n as u8),
            n @ 128..=255 => out.extend([0x81, n as u8]),
            n => out.extend([0x82, (n >> 8) as u8, n as u8]),
        }
        out.extend(body);
        out
    }
    let data = element(0x30, &element(0x06, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01]));
    let fields =
        [element(0x02, &[1]), element(0x31, &[]), data, element(0xa0, certificate), element(0x31, &[])].concat();
    let signed = element(0xa0, &element(0x30, &fields));
    element(0x30, &[element(0x06, &SIGNED_DATA), signed].concat())
}

#[test]
fn a_pkcs7_bag_gives_its_certificates_and_no_torn_one_panics() {
    let (ca, key) = (Authority::new("ca"), PrivateKey::generate().unwrap());
    let own = ca.client(&key, NAME, NOW);
    let bytes = bag(&[own.as_ref(), ca.der().as_ref()].concat());
    assert_eq!(from_pkcs7(&bytes, "x").unwrap(), [own, ca.der()]);
    for cut in 0..bytes.len() {
        from_pkcs7(&bytes[..cut], "x").unwrap_err();
        let mut flipped = bytes.clone();
        flipped[cut] ^= 0x5a;
        let _ = from_pkcs7(&flipped, "x");
    }
    from_pkcs7(&bag(&[]), "x").unwrap_err();
}
