//! What went wrong in TLS, by kind, with a remedy.
//!
//! Owns the translation from rustls' errors and the peer's alerts (RFC 8446, 6.2) into what a person can act on, and whose fault it is: an
//! alert about *our* certificate is the only kind that speaks against a new one. Refuses to guess where there is no TLS error at all.

use std::error::Error;

use gengfu_contract::words::Text;
use rustls::{AlertDescription, CertificateError};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFaultKind {
    /// The broker's certificate is over.
    Expired,
    /// The broker's certificate has not begun.
    NotYetValid,
    /// No authority of ours signed the broker's certificate.
    UnknownAuthority,
    /// The broker's certificate is for another host.
    WrongName,
    /// The broker's certificate was revoked.
    Revoked,
    /// The broker's certificate is unusable for another reason.
    BadServerCertificate,
    /// The broker says that ours is over.
    OursExpired,
    /// The broker says that ours was revoked.
    OursRevoked,
    /// The broker does not know who signed ours.
    OursUnknownAuthority,
    /// The broker wants a certificate and got none.
    OursRequired,
    /// The broker refuses ours without a closer reason.
    OursRefused,
    /// There is no TLS at the other end.
    NotTls,
    /// No version or cipher in common, or the protocol broken.
    Protocol,
}

impl TlsFaultKind {
    /// The other end looked at our certificate and refused it.
    #[must_use]
    pub fn is_about_ours(self) -> bool {
        use TlsFaultKind::*;
        matches!(self, OursExpired | OursRevoked | OursUnknownAuthority | OursRequired | OursRefused)
    }

    /// What happened, as a part of a sentence.
    #[must_use]
    pub fn reason(self) -> Text {
        use TlsFaultKind::*;
        let (zh, en) = match self {
            Expired => ("消息服务器证书已过期", "the broker's certificate has expired"),
            NotYetValid => ("消息服务器证书尚未生效", "the broker's certificate is not valid yet"),
            UnknownAuthority => (
                "消息服务器证书由本网关未知的 CA 签发",
                "the broker's certificate is signed by an authority that this gateway does not know",
            ),
            WrongName => ("消息服务器证书的主机名不符", "the broker's certificate is for another host name"),
            Revoked => ("消息服务器证书已被吊销", "the broker's certificate was revoked"),
            BadServerCertificate => ("消息服务器证书不可用", "the broker's certificate cannot be used"),
            OursExpired => {
                ("消息服务器拒绝本网关证书：已过期", "the broker refuses this gateway's certificate: expired")
            }
            OursRevoked => {
                ("消息服务器拒绝本网关证书：已吊销", "the broker refuses this gateway's certificate: revoked")
            }
            OursUnknownAuthority => (
                "消息服务器不认识本网关证书的签发者",
                "the broker refuses this gateway's certificate: it does not know who signed it",
            ),
            OursRequired => {
                ("消息服务器要求证书，而本网关没有", "the broker asks for a certificate and this gateway has none")
            }
            OursRefused => ("消息服务器拒绝本网关证书", "the broker refuses this gateway's certificate"),
            NotTls => ("该端口不是 TLS 服务", "what answers on that port does not speak TLS"),
            Protocol => (
                "与消息服务器没有共同的 TLS 版本或算法",
                "the broker and this gateway have no TLS version or cipher in common",
            ),
        };
        Text { zh: zh.into(), en: en.into() }
    }

    /// What a person can do.
    #[must_use]
    pub fn remedy(self) -> Text {
        use TlsFaultKind::*;
        let (zh, en) = match self {
            Expired => (
                "更新服务器证书；若证书未到期，请检查本网关时钟",
                "renew the broker's certificate; if it is not over, check this gateway's clock (timedatectl status)",
            ),
            NotYetValid => (
                "检查本网关时钟和服务器证书",
                "check this gateway's clock (timedatectl status), and the broker's certificate",
            ),
            UnknownAuthority => (
                "将签发服务器证书的 CA 放到 uplink.tls.ca_file",
                "copy the CA that signed the broker's certificate to uplink.tls.ca_file",
            ),
            WrongName => (
                "在 uplink.broker 中使用证书上的名称，或为该名称重新签发证书",
                "write the name from the broker's certificate into uplink.broker, or have the certificate made for that name",
            ),
            Revoked => (
                "为服务器更换证书；若误吊销，请更新 uplink.tls.crl_file",
                "give the broker a new certificate; if it was revoked by mistake, take it off uplink.tls.crl_file",
            ),
            BadServerCertificate => (
                "重新签发服务器证书（用途为服务器，含主机名）",
                "have the broker's certificate made anew: for a server, with its host name as subject alternative name",
            ),
            OursExpired => (
                "续期证书：gengfu enrol request，签发后 gengfu enrol install",
                "renew the certificate: `gengfu enrol request`, have it signed, `gengfu enrol install`",
            ),
            OursRevoked => (
                "若设备未丢失，请用新密钥重新登记（gengfu enrol request --new-key）",
                "if this box was not lost: enrol it anew with a new key (`gengfu enrol request --new-key`)",
            ),
            OursUnknownAuthority => (
                "将签发本网关证书的 CA 配置到服务器（mosquitto: cafile）",
                "give the broker the CA that signed this gateway's certificate (mosquitto: cafile)",
            ),
            OursRequired => (
                "登记本网关（gengfu enrol request），或在 [uplink.tls] 中填写 cert_file 和 key_file",
                "enrol this gateway (`gengfu enrol request`), or name cert_file and key_file in [uplink.tls]",
            ),
            OursRefused => (
                "查看服务器日志；确认证书用途为客户端且由服务器的 CA 签发",
                "read the broker's log; check that the certificate is for a client and signed by the broker's CA",
            ),
            NotTls => (
                "检查 uplink.broker 的端口（TLS 通常为 8883）；服务器在本机时可删除 [uplink.tls]",
                "check the port in uplink.broker (8883 is usual for TLS), or remove [uplink.tls] for a broker on this box",
            ),
            Protocol => ("服务器须支持 TLS 1.2 或 1.3", "the broker must offer TLS 1.2 or 1.3"),
        };
        Text { zh: zh.into(), en: en.into() }
    }
}

/// A fault with its cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFault {
    /// What is wrong.
    pub kind: TlsFaultKind,
    /// rustls' words.
    pub cause: String,
}

impl std::fmt::Display for TlsFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.kind.reason().en, self.cause)
    }
}

/// The TLS fault behind an error, if there is one anywhere in its chain of causes.
#[must_use]
pub fn explain(error: &(dyn Error + 'static)) -> Option<TlsFault> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(of_rustls(found));
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && let Some(inner) = io.get_ref()
        {
            // `Error::source` of an io::Error skips the error it carries.
            let inner: &(dyn Error + 'static) = inner;
            if let Some(found) = explain(inner) {
                return Some(found);
            }
        }
        next = error.source();
    }
    None
}

fn of_rustls(error: &rustls::Error) -> TlsFault {
    use TlsFaultKind::*;
    let kind = match error {
        rustls::Error::InvalidCertificate(why) => of_certificate(why),
        rustls::Error::AlertReceived(alert) => of_alert(*alert),
        rustls::Error::InvalidMessage(_) => NotTls,
        rustls::Error::NoCertificatesPresented => BadServerCertificate,
        rustls::Error::InvalidCertRevocationList(_) => BadServerCertificate,
        _ => Protocol,
    };
    TlsFault { kind, cause: error.to_string() }
}

fn of_certificate(why: &CertificateError) -> TlsFaultKind {
    use CertificateError as C;
    match why {
        C::Expired | C::ExpiredContext { .. } => TlsFaultKind::Expired,
        C::NotValidYet | C::NotValidYetContext { .. } => TlsFaultKind::NotYetValid,
        C::UnknownIssuer | C::BadSignature => TlsFaultKind::UnknownAuthority,
        C::NotValidForName | C::NotValidForNameContext { .. } => TlsFaultKind::WrongName,
        C::Revoked => TlsFaultKind::Revoked,
        _ => TlsFaultKind::BadServerCertificate,
    }
}

fn of_alert(alert: AlertDescription) -> TlsFaultKind {
    use AlertDescription as A;
    match alert {
        A::CertificateExpired => TlsFaultKind::OursExpired,
        A::CertificateRevoked => TlsFaultKind::OursRevoked,
        A::UnknownCA => TlsFaultKind::OursUnknownAuthority,
        A::CertificateRequired | A::NoCertificate => TlsFaultKind::OursRequired,
        A::BadCertificate | A::UnsupportedCertificate | A::CertificateUnknown | A::AccessDenied | A::DecryptError => {
            TlsFaultKind::OursRefused
        }
        // A TLS 1.2 peer that misses our certificate says no more than this.
        A::HandshakeFailure => TlsFaultKind::OursRequired,
        _ => TlsFaultKind::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("io: {0}")]
        Io(#[from] std::io::Error),
    }

    #[test]
    fn an_alert_is_found_however_deep_it_is_wrapped() {
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRevoked);
        let wrapped = Outer::from(std::io::Error::other(Outer::from(std::io::Error::other(alert))));
        let fault = explain(&wrapped).unwrap();
        assert_eq!(fault.kind, TlsFaultKind::OursRevoked);
        assert!(fault.kind.is_about_ours() && fault.to_string().contains("revoked"));
        let plain = Outer::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(explain(&plain), None);
    }

    #[test]
    fn the_brokers_faults_do_not_speak_against_our_certificate() {
        for (error, kind) in [
            (CertificateError::Expired, TlsFaultKind::Expired),
            (CertificateError::UnknownIssuer, TlsFaultKind::UnknownAuthority),
            (CertificateError::NotValidForName, TlsFaultKind::WrongName),
            (CertificateError::Revoked, TlsFaultKind::Revoked),
            (CertificateError::NotValidYet, TlsFaultKind::NotYetValid),
        ] {
            let fault = explain(&rustls::Error::InvalidCertificate(error)).unwrap();
            assert_eq!(fault.kind, kind);
            assert!(!kind.is_about_ours() && !kind.remedy().en.is_empty());
        }
    }
}
