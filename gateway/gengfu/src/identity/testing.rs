//! Authorities and certificates for the tests of this module.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use super::key::PrivateKey;

/// Years from and until.
pub(crate) type Years = (i32, i32);
/// Valid now and for long.
pub(crate) const NOW: Years = (2020, 2048);

pub(crate) struct Authority(pub CertifiedIssuer<'static, KeyPair>);

fn params(name: &str, names: &[&str], (from, to): Years) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    params
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(name, &[], (2000, 2049));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn client(&self, key: &PrivateKey, name: &str, years: Years) -> CertificateDer<'static> {
        self.sign(&KeyPair::from_pem(key.reveal()).unwrap(), name, &[], years, 7, ExtendedKeyUsagePurpose::ClientAuth)
    }

    pub(crate) fn server(&self, names: &[&str], years: Years, serial: u64) -> (CertificateDer<'static>, PrivateKey) {
        let key = PrivateKey::generate().unwrap();
        let pair = KeyPair::from_pem(key.reveal()).unwrap();
        (self.sign(&pair, "server", names, years, serial, ExtendedKeyUsagePurpose::ServerAuth), key)
    }

    fn sign(
        &self,
        key: &KeyPair,
        name: &str,
        names: &[&str],
        years: Years,
        serial: u64,
        usage: ExtendedKeyUsagePurpose,
    ) -> CertificateDer<'static> {
        let mut params = params(name, names, years);
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        params.signed_by(key, &self.0).unwrap().der().clone()
    }

    pub(crate) fn crl(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2021, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }
}
