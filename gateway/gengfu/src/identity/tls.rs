//! rustls' configuration from files, and made anew when they change.
//!
//! Owns who is believed (the authorities and their revocation list), who we are, the check of a broker's certificate with the time that
//! [`TrustedTime`] knows, and the moment at which a standing connection should be made anew. TLS 1.2 and 1.3 with ring. A configuration that
//! has worked stays in use when the files become faulty; that is told, not obeyed. Refuses session tickets: each connection shows and checks
//! certificates, so that a revoked one does not live on in a ticket.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::sync::Notify;
use zeroize::Zeroizing;

use super::certificate::{self, CertificateError, Facts};
use super::key::{KeyError, PrivateKey};
use super::slots::{Pair, SlotError, read_pair};
use super::time::TrustedTime;
use crate::clock::SystemClock;

/// PEM files for a connection by TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority that signed the broker's certificate.
    pub ca: PathBuf,
    /// Our certificate and its key, for mutual TLS.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Who we say we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// Nobody: the broker asks for a password, or for nothing.
    Nobody,
    /// Certificate and key, given by an installer.
    Files {
        /// Our certificate, and those between it and the authority.
        cert: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// A slot: key and certificates in one file.
    Slot(PathBuf),
}

/// Where everything lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Authorities that may sign a broker's certificate.
    pub ca: PathBuf,
    /// Brokers' certificates that were revoked.
    pub crl: Option<PathBuf>,
    /// Who we are.
    pub own: Own,
}

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsProblem {
    /// A file.
    #[error("cannot read {path}: {source}; check [uplink.tls], and that the gateway's user may read it")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// No certificate has been installed yet.
    #[error(
        "this gateway has no certificate yet; `gengfu enrol request`, have the request signed, `gengfu enrol install`"
    )]
    NotEnrolled,
    /// The revocation list.
    #[error("{path} is no revocation list of that authority ({why}); have it made anew, or remove uplink.tls.crl_file")]
    Crl {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Key and certificate do not belong together.
    #[error("{cert} was not made for the key {key}; put the two that belong together there")]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's.
        key: PathBuf,
    },
    /// Something in a slot.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// rustls refuses the rest.
    #[error("TLS cannot use what the files hold: {0}")]
    Rustls(#[from] rustls::Error),
}

/// A configuration that was read.
#[derive(Debug, Clone)]
pub struct Loaded {
    config: Arc<ClientConfig>,
    /// What our certificate says.
    pub facts: Option<Facts>,
}

/// Credentials for connections. Clones share everything.
#[derive(Debug, Clone)]
pub struct Credentials(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
    time: TrustedTime,
    active: Mutex<Option<Loaded>>,
    generation: AtomicU64,
    renewed: Notify,
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source
    }
}

impl Eq for Credentials {}

impl From<TlsFiles> for Credentials {
    /// With a clock that is believed: for a desk or a command, where a person sees the error.
    fn from(files: TlsFiles) -> Self {
        let own = files.identity.map_or(Own::Nobody, |(cert, key)| Own::Files { cert, key });
        let source = Source { ca: files.ca, crl: None, own };
        Self::new(source, TrustedTime::of_clock(Arc::new(SystemClock)))
    }
}

/// What tells whether a file is another one than before.
pub type Stamp = Option<(u64, i64, i64, u64)>;

impl Credentials {
    /// Credentials from these files. Reads nothing yet.
    #[must_use]
    pub fn new(source: Source, time: TrustedTime) -> Self {
        let active = Mutex::new(None);
        Self(Arc::new(Inner { source, time, active, generation: AtomicU64::new(0), renewed: Notify::new() }))
    }

    /// Where everything lies.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.0.source
    }

    /// The time certificates are checked against.
    #[must_use]
    pub fn time(&self) -> &TrustedTime {
        &self.0.time
    }

    /// The same authorities with another certificate: to try that one.
    #[must_use]
    pub fn with_own(&self, own: Own) -> Self {
        Self::new(Source { own, ..self.0.source.clone() }, self.0.time.clone())
    }

    /// The configuration in use; read from the files when there is none yet.
    ///
    /// # Errors
    /// [`TlsProblem`].
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, TlsProblem> {
        let mut active = self.active();
        if let Some(loaded) = active.as_ref() {
            return Ok(loaded.config.clone());
        }
        let loaded = load(&self.0.source, &self.0.time)?;
        Ok(active.insert(loaded).config.clone())
    }

    /// What our certificate in use says; `None` without one.
    #[must_use]
    pub fn facts(&self) -> Option<Facts> {
        self.active().as_ref().and_then(|loaded| loaded.facts.clone())
    }

    /// Reads the files without using them.
    ///
    /// # Errors
    /// [`TlsProblem`].
    pub fn read(&self) -> Result<Loaded, TlsProblem> {
        load(&self.0.source, &self.0.time)
    }

    /// Uses what was read, for new connections at once; standing ones are told ([`Credentials::renewed_since`]).
    pub fn adopt(&self, loaded: Loaded) {
        *self.active() = Some(loaded);
        self.0.generation.fetch_add(1, Ordering::SeqCst);
        self.0.renewed.notify_waiters();
    }

    /// How often they were renewed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::SeqCst)
    }

    /// Completes when they were renewed after `generation`.
    pub async fn renewed_since(&self, generation: u64) {
        loop {
            // Registered before looking: a renewal between the two is not missed.
            let notified = self.0.renewed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.generation() != generation {
                return;
            }
            notified.await;
        }
    }

    /// The state of all files; differs when one was replaced.
    #[must_use]
    pub fn stamps(&self) -> Vec<Stamp> {
        let source = &self.0.source;
        let mut files = vec![source.ca.as_path()];
        files.extend(source.crl.as_deref());
        match &source.own {
            Own::Nobody => {}
            Own::Files { cert, key } => files.extend([cert.as_path(), key.as_path()]),
            Own::Slot(file) => files.push(file),
        }
        let stamp = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.ino(), found.mtime(), found.mtime_nsec(), found.size()))
        };
        files.into_iter().map(stamp).collect()
    }

    fn active(&self) -> MutexGuard<'_, Option<Loaded>> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The authorities of a file.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn roots(ca: &Path) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    Ok(certificate::from_pem(&read(ca)?, &ca.display().to_string())?)
}

fn load(source: &Source, time: &TrustedTime) -> Result<Loaded, TlsProblem> {
    let crls = match &source.crl {
        None => Vec::new(),
        Some(path) => revoked(path)?,
    };
    let authorities = roots(&source.ca)?;
    let pair = match &source.own {
        Own::Nobody => None,
        Own::Slot(file) => Some(match std::fs::read(file).map(Zeroizing::new) {
            Ok(bytes) => read_pair(&String::from_utf8_lossy(&bytes), &file.display().to_string())?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(TlsProblem::NotEnrolled),
            Err(source) => return Err(TlsProblem::File { path: file.clone(), source }),
        }),
        Own::Files { cert, key } => Some(given(cert, key)?),
    };
    let mismatch = |error| match (&error, &source.own) {
        (rustls::Error::InconsistentKeys(_), Own::Files { cert, key }) => {
            TlsProblem::Mismatch { cert: cert.clone(), key: key.clone() }
        }
        (rustls::Error::InconsistentKeys(_), _) => TlsProblem::Certificate(CertificateError::OtherKey),
        _ => TlsProblem::Rustls(error),
    };
    let crl_fault = |why: String| TlsProblem::Crl { path: source.crl.clone().unwrap_or_default(), why };
    let facts = pair.as_ref().map(|pair| pair.facts.clone());
    let config = config(authorities, crls, pair.as_ref(), time, mismatch, crl_fault)?;
    Ok(Loaded { config: Arc::new(config), facts })
}

fn given(cert: &Path, key: &Path) -> Result<Pair, TlsProblem> {
    let origin = cert.display().to_string();
    let key = PrivateKey::from_file(key)?;
    let chain = certificate::from_pem(&read(cert)?, &origin)?;
    let first = chain.first().ok_or(CertificateError::OtherKey)?;
    let facts = Facts::of(first, &origin)?;
    Ok(Pair { key, chain, facts })
}

fn revoked(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsProblem> {
    let text = read(path)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&text).collect();
    let fail = |why: String| TlsProblem::Crl { path: path.to_owned(), why };
    let lists = lists.map_err(|e| fail(format!("{e:?}")))?;
    if lists.is_empty() { Err(fail("it begins with -----BEGIN X509 CRL-----".into())) } else { Ok(lists) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsProblem> {
    std::fs::read(path).map_err(|source| TlsProblem::File { path: path.to_owned(), source })
}

/// A configuration for enrolment: these authorities, and a pair to show or none.
pub(super) fn for_enrolment(
    authorities: Vec<CertificateDer<'static>>,
    pair: Option<&Pair>,
    time: &TrustedTime,
) -> Result<ClientConfig, TlsProblem> {
    config(authorities, Vec::new(), pair, time, TlsProblem::Rustls, |why| TlsProblem::Crl { path: PathBuf::new(), why })
}

fn config(
    authorities: Vec<CertificateDer<'static>>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    pair: Option<&Pair>,
    time: &TrustedTime,
    refused: impl FnOnce(rustls::Error) -> TlsProblem,
    crl_fault: impl FnOnce(String) -> TlsProblem,
) -> Result<ClientConfig, TlsProblem> {
    let mut store = RootCertStore::empty();
    for authority in authorities {
        store.add(authority)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // Revocation is asked of the lists there are. A list past its own date still holds: refusing brokers for want of a new list would keep
    // alarms in.
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
        .with_crls(crls)
        .only_check_end_entity_revocation()
        .allow_unknown_revocation_status()
        .build()
        .map_err(|e| crl_fault(e.to_string()))?;
    let verifier = Arc::new(Verifier { inner, time: time.clone() });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => builder.with_client_auth_cert(pair.chain.clone(), pair.key.der()?).map_err(refused)?,
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// webpki's verifier at the time that is known, instead of the time the system says.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    time: TrustedTime,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<&CertificateDer<'_>> = std::iter::once(end_entity).chain(intermediates).collect();
        let at = certificate::unix(certificate::moment(self.time.reading(), &chain));
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
#[path = "tests/tls.rs"]
mod tests;
