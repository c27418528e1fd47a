//! Enrolment over HTTPS (RFC 7030, EST).
//!
//! Owns `simpleenroll` with a one-time password, `simplereenroll` with the certificate in use, and `cacerts`. The answer may be PKCS#7 as the
//! standard has it, or plain PEM. Refuses plain HTTP, redirects, and answers of more than a mebibyte; the key never leaves the box, only
//! the request does.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::certificate::{self, CertificateError};
use super::fault;
use super::slots::Pair;
use super::time::TrustedTime;
use super::tls::{TlsProblem, for_enrolment};

/// Largest answer, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// A request that has no answer by then has failed; an authority may ask a hardware module.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long to wait for a certificate that a person must approve, where the authority does not say (RFC 7030, 4.2.3).
const APPROVAL: Duration = Duration::from_secs(600);

/// Where to enrol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    host: String,
    port: u16,
    path: String,
}

impl Place {
    /// From a URL such as `https://ca.example/.well-known/est`; without a path that one is meant.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        if uri.scheme_str() != Some("https") || uri.query().is_some() {
            return None;
        }
        let authority = uri.authority()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let path = match uri.path().trim_end_matches('/') {
            "" => "/.well-known/est",
            path => path,
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self { host, port: authority.port_u16().unwrap_or(443), path: path.to_owned() })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "https://{}:{}{}", self.host, self.port, self.path)
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Proof<'a> {
    /// Nobody yet; for [`Client::authorities`].
    Nobody,
    /// A one-time password (HTTP Basic, RFC 7617, within TLS).
    Password {
        /// User.
        user: &'a str,
        /// Password.
        password: &'a Zeroizing<String>,
    },
    /// The certificate in use.
    Certificate(&'a Pair),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Certificates, in any order.
    Issued(Vec<CertificateDer<'static>>),
    /// A person must approve it: ask again after this.
    Later(Duration),
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub enum EstError {
    /// The server is not reached.
    #[error("the enrolment server {place} is not reached ({why}); check the network and uplink.tls.enrol.url")]
    Unreachable {
        /// Where.
        place: Place,
        /// Why.
        why: String,
    },
    /// TLS with it fails.
    #[error(
        "no TLS with the enrolment server {place}: {why}; check uplink.tls.enrol.ca_file, the server's certificate and this box's clock"
    )]
    Tls {
        /// Where.
        place: Place,
        /// Why.
        why: String,
    },
    /// It does not accept who asks.
    #[error(
        "the enrolment server {0} does not accept this gateway; the one-time password may be used up: have a new one issued and write it into \
         uplink.tls.enrol.password_file"
    )]
    NotAccepted(Place),
    /// It refuses.
    #[error("the enrolment server {place} answers {status}: {text}; ask whoever runs the authority")]
    Refused {
        /// Where.
        place: Place,
        /// HTTP status.
        status: u16,
        /// The beginning of its words.
        text: String,
    },
    /// Its answer is no certificate.
    #[error(transparent)]
    Answer(#[from] CertificateError),
    /// Our own files.
    #[error(transparent)]
    Own(#[from] TlsProblem),
}

/// A client of one enrolment server.
#[derive(Debug, Clone)]
pub struct Client {
    /// Where.
    pub place: Place,
    /// Authorities that may sign the server's own certificate.
    pub roots: Vec<CertificateDer<'static>>,
    /// The time.
    pub time: TrustedTime,
}

impl Client {
    /// Asks for a first certificate (`simpleenroll`), or with [`Proof::Certificate`] for its successor (`simplereenroll`).
    ///
    /// # Errors
    /// [`EstError`].
    pub async fn enrol(&self, request_pem: &str, proof: Proof<'_>) -> Result<Outcome, EstError> {
        let operation = if matches!(proof, Proof::Certificate(_)) { "simplereenroll" } else { "simpleenroll" };
        let der = CertificateSigningRequestDer::from_pem_slice(request_pem.as_bytes())
            .map_err(|e| CertificateError::Unreadable { origin: "our own request".into(), why: format!("{e:?}") })?;
        let body = STANDARD.encode(&der);
        let (status, wait, answer) = self.ask(Method::POST, operation, body.into_bytes(), proof).await?;
        match status {
            StatusCode::OK => Ok(Outcome::Issued(certificates(&answer, &self.place.to_string())?)),
            StatusCode::ACCEPTED => Ok(Outcome::Later(wait.unwrap_or(APPROVAL))),
            _ => Err(self.refusal(status, &answer)),
        }
    }

    /// The authorities' own certificates (`cacerts`).
    ///
    /// # Errors
    /// [`EstError`].
    pub async fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, EstError> {
        let (status, _, answer) = self.ask(Method::GET, "cacerts", Vec::new(), Proof::Nobody).await?;
        if status != StatusCode::OK {
            return Err(self.refusal(status, &answer));
        }
        Ok(certificates(&answer, &self.place.to_string())?)
    }

    fn refusal(&self, status: StatusCode, answer: &[u8]) -> EstError {
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return EstError::NotAccepted(self.place.clone());
        }
        let words = String::from_utf8_lossy(answer);
        let text: String = words.trim().chars().filter(|c| !c.is_control()).take(200).collect();
        EstError::Refused { place: self.place.clone(), status: status.as_u16(), text }
    }

    async fn ask(
        &self,
        method: Method,
        operation: &str,
        body: Vec<u8>,
        proof: Proof<'_>,
    ) -> Result<(StatusCode, Option<Duration>, Vec<u8>), EstError> {
        let unreachable = |why: String| EstError::Unreachable { place: self.place.clone(), why };
        let late = || unreachable(format!("no answer within {} s", ANSWER_WITHIN.as_secs()));
        let exchange = self.exchange(method, operation, body, proof);
        tokio::time::timeout(ANSWER_WITHIN, exchange).await.map_err(|_| late())?
    }

    async fn exchange(
        &self,
        method: Method,
        operation: &str,
        body: Vec<u8>,
        proof: Proof<'_>,
    ) -> Result<(StatusCode, Option<Duration>, Vec<u8>), EstError> {
        let unreachable = |why: String| EstError::Unreachable { place: self.place.clone(), why };
        let torn = |e: &(dyn std::error::Error + 'static)| match fault::explain(e) {
            Some(fault) => {
                EstError::Tls { place: self.place.clone(), why: fault.to_string().replace("the broker", "the server") }
            }
            None => unreachable(e.to_string()),
        };
        let pair = if let Proof::Certificate(pair) = proof { Some(pair) } else { None };
        let config = for_enrolment(self.roots.clone(), pair, &self.time)?;
        let name = ServerName::try_from(self.place.host.clone()).map_err(|e| unreachable(e.to_string()))?;
        let address = (self.place.host.as_str(), self.place.port);
        let stream = TcpStream::connect(address).await.map_err(|e| unreachable(e.to_string()))?;
        let stream = TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await;
        let stream = stream.map_err(|e| torn(&e))?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|e| torn(&e))?;
        let request = self.request(method, operation, body, proof).map_err(|e| unreachable(e.to_string()))?;
        let talk = async {
            let response = sender.send_request(request).await.map_err(|e| torn(&e))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let wait = headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
            let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let answer = answer.map_err(|e| unreachable(e.to_string()))?.to_bytes().to_vec();
            Ok((status, wait.map(Duration::from_secs), answer))
        };
        tokio::pin!(talk, connection);
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                answer = &mut talk => return answer,
                ended = &mut connection, if open => {
                    if let Err(error) = ended {
                        return Err(torn(&error));
                    }
                    open = false;
                }
            }
        }
    }

    fn request(
        &self,
        method: Method,
        operation: &str,
        body: Vec<u8>,
        proof: Proof<'_>,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/{operation}", self.place.path))
            .header(header::HOST, format!("{}:{}", self.place.host, self.place.port))
            .header(header::USER_AGENT, concat!("gengfu/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "application/pkcs7-mime, application/pem-certificate-chain");
        if !body.is_empty() {
            request = request
                .header(header::CONTENT_TYPE, "application/pkcs10")
                .header("Content-Transfer-Encoding", "base64");
        }
        if let Proof::Password { user, password } = proof {
            let words = Zeroizing::new(format!("{user}:{}", password.as_str()));
            let mut value = header::HeaderValue::try_from(format!("Basic {}", STANDARD.encode(words.as_bytes())))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        request.body(Full::new(Bytes::from(body)))
    }
}

/// Certificates in whichever form they come: PEM, PKCS#7 in PEM, in base64 (RFC 7030, 4.1.3), or bare.
fn certificates(answer: &[u8], origin: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let text = String::from_utf8_lossy(answer);
    if text.contains("-----BEGIN CERTIFICATE-----") {
        return certificate::from_pem(answer, origin);
    }
    if answer.first() == Some(&0x30) {
        return certificate::from_pkcs7(answer, origin);
    }
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).flat_map(str::split_whitespace).collect();
    let der = STANDARD.decode(body).map_err(|e| CertificateError::Unreadable {
        origin: origin.to_owned(),
        why: format!("neither PEM nor base64: {e}"),
    })?;
    certificate::from_pkcs7(&der, origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_without_credentials_in_it_is_an_enrolment_server() {
        let place = |url| Place::parse(url).map(|place| place.to_string());
        assert_eq!(place("https://ca.example").as_deref(), Some("https://ca.example:443/.well-known/est"));
        assert_eq!(place("https://[::1]:8443/est/").as_deref(), Some("https://::1:8443/est"));
        for wrong in ["http://ca.example", "ca.example", "https://u:p@ca.example", "https://ca.example/?x=1", ""] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_answer_that_is_no_certificate_names_where_it_came_from() {
        for wrong in [&b""[..], b"<html>", b"AAAA", b"0\x80", b"-----BEGIN CERTIFICATE-----\n"] {
            let error = certificates(wrong, "https://ca.example").unwrap_err();
            assert!(error.to_string().contains("https://ca.example"), "{error}");
        }
    }
}
