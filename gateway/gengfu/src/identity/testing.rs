//! Authorities, certificates, and a folder whose power can be cut, for tests.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use super::folder::Folder;
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

/// Where in a step the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    Torn,
    After,
}

#[derive(Debug, Default)]
struct State {
    live: BTreeMap<String, Vec<u8>>,
    /// Names that survive a cut; the bytes of a written file were synced with it.
    durable: BTreeMap<String, Vec<u8>>,
    steps: usize,
    cut: Option<(usize, Moment)>,
    is_off: bool,
}

/// A folder that stops working before, in the middle of or after one of its steps, and then shows either what was done or only what was synced.
#[derive(Debug, Clone, Default)]
pub(crate) struct CutFolder(Arc<Mutex<State>>);

impl CutFolder {
    fn step(&self, torn: impl FnOnce(&mut State), whole: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let off = || Err(io::Error::other("power cut"));
        if state.is_off {
            return off();
        }
        let number = state.steps;
        state.steps += 1;
        match state.cut {
            Some((at, moment)) if at == number => {
                state.is_off = true;
                match moment {
                    Moment::Before => {}
                    Moment::Torn => torn(&mut state),
                    Moment::After => whole(&mut state),
                }
                off()
            }
            _ => {
                whole(&mut state);
                Ok(())
            }
        }
    }

    /// The power comes back; `synced_only`: what was not synced is gone.
    pub(crate) fn reboot(&self, synced_only: bool) {
        let mut state = self.0.lock().unwrap();
        if synced_only {
            state.live = state.durable.clone();
        }
        (state.durable, state.cut, state.is_off) = (state.live.clone(), None, false);
    }

    /// The power goes at this step, counted from now.
    pub(crate) fn cut_at(&self, step: usize, moment: Moment) {
        let mut state = self.0.lock().unwrap();
        (state.steps, state.cut) = (0, Some((step, moment)));
    }
}

impl Folder for CutFolder {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().live.get(name).cloned())
    }
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let half = bytes[..bytes.len() / 2].to_vec();
        self.step(
            |state| drop(state.live.insert(name.into(), half)),
            |state| drop(state.live.insert(name.into(), bytes.to_vec())),
        )
    }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        if !self.0.lock().unwrap().live.contains_key(from) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let done = |state: &mut State| {
            let bytes = state.live.remove(from).expect("looked at above");
            state.live.insert(to.into(), bytes);
        };
        self.step(|_| {}, done)
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.step(|_| {}, |state| drop(state.live.remove(name)))
    }
    fn sync(&mut self) -> io::Result<()> {
        self.step(|_| {}, |state| state.durable = state.live.clone())
    }
}
