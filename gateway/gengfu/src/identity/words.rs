//! What can be wrong with keys and certificates, in Chinese; in English each error says it itself.
//!
//! Owns the second language of this module's errors: what, then after a semicolon what to do, as in the English ones. A reason that comes from
//! the system or a library stays as it is. Refuses to judge.

use gengfu_contract::words::Text;

use super::certificate::CertificateError;
use super::est::EstError;
use super::key::KeyError;
use super::slots::SlotError;
use super::tls::TlsProblem;

/// An error that can be said in Chinese too.
pub trait InChinese: std::fmt::Display {
    /// What is wrong, and behind "；" what to do.
    fn zh(&self) -> String;

    /// Both languages.
    fn text(&self) -> Text {
        Text { zh: self.zh(), en: self.to_string() }
    }
}

impl InChinese for KeyError {
    fn zh(&self) -> String {
        match self {
            KeyError::File { path, source } => {
                format!("无法读取密钥 {}（{source}）；检查路径，并确认网关用户可读", path.display())
            }
            KeyError::Exposed { path, mode } => format!(
                "密钥 {0} 可被本机所有用户读取（权限 {mode:03o}）；执行 chmod 600 {0}，若本机有其他用户，请吊销证书并重新登记",
                path.display()
            ),
            KeyError::NoKey(file) => {
                format!("{file} 中没有 PEM 格式的私钥；文件应以 -----BEGIN PRIVATE KEY----- 开头")
            }
            KeyError::Crypto { doing, why } => format!("密码运算失败（{doing}：{why}）；请重试，若反复出现请上报"),
        }
    }
}

impl InChinese for CertificateError {
    fn zh(&self) -> String {
        match self {
            CertificateError::Unreadable { origin, why } => {
                format!("{origin} 中没有可读取的证书（{why}）；文件应以 -----BEGIN CERTIFICATE----- 开头")
            }
            CertificateError::OtherKey => {
                "证书不是为本网关的密钥签发的；请签发本网关最近一次的申请（gengfu enrol request 可重新写出）".into()
            }
            CertificateError::OtherName { found, wanted } => {
                format!("证书名称为“{found}”，而本网关为“{wanted}”；请向签发机构申请该名称的证书")
            }
            CertificateError::Expired(at) => {
                format!("证书已于 {at} 过期；请重新签发（若并未过期，请检查本网关时钟）")
            }
            CertificateError::NotYet(at) => format!("证书自 {at} 起才生效；检查签发机构和本网关的时钟"),
            CertificateError::OtherAuthority { authorities, why } => {
                format!("证书不是由 {authorities} 中的机构签发的（{why}）；指定其签发机构的文件，或由正确的机构签发")
            }
            CertificateError::Key(error) => error.zh(),
        }
    }
}

impl InChinese for SlotError {
    fn zh(&self) -> String {
        match self {
            SlotError::Disk { doing, folder, source } => format!(
                "无法在 {} 中存取证书（{doing}：{source}）；检查磁盘，并确认该目录属于网关用户",
                folder.display()
            ),
            SlotError::NoRequest => "没有等待证书的密钥；请先申请：gengfu enrol request".into(),
            SlotError::Key(error) => error.zh(),
            SlotError::Certificate(error) => error.zh(),
        }
    }
}

impl InChinese for TlsProblem {
    fn zh(&self) -> String {
        match self {
            TlsProblem::File { path, source } => {
                format!("无法读取 {}（{source}）；检查 [uplink.tls]，并确认网关用户可读", path.display())
            }
            TlsProblem::NotEnrolled => "本网关还没有证书；gengfu enrol request，签发后 gengfu enrol install".into(),
            TlsProblem::Crl { path, why } => {
                format!("{} 不是该机构的吊销列表（{why}）；重新制作，或删除 uplink.tls.crl_file", path.display())
            }
            TlsProblem::Mismatch { cert, key } => {
                format!("{} 不是为密钥 {} 签发的；请放入配套的两个文件", cert.display(), key.display())
            }
            TlsProblem::Slot(error) => error.zh(),
            TlsProblem::Key(error) => error.zh(),
            TlsProblem::Certificate(error) => error.zh(),
            TlsProblem::Rustls(error) => format!("TLS 无法使用这些文件（{error}）；检查 [uplink.tls] 的文件"),
        }
    }
}

impl InChinese for EstError {
    fn zh(&self) -> String {
        match self {
            EstError::Unreachable { place, why } => {
                format!("无法连接登记服务器 {place}（{why}）；检查网络和 uplink.tls.enrol.url")
            }
            EstError::Tls { place, why } => format!(
                "无法与登记服务器 {place} 建立加密连接（{why}）；检查 uplink.tls.enrol.ca_file、服务器证书和本网关时钟"
            ),
            EstError::NotAccepted(place) => format!(
                "登记服务器 {place} 不接受本网关；一次性密码可能已用过：请申请新密码并写入 uplink.tls.enrol.password_file"
            ),
            EstError::Refused { place, status, text } => {
                format!("登记服务器 {place} 拒绝（{status}：{text}）；请联系签发机构的管理员")
            }
            EstError::Answer(error) => error.zh(),
            EstError::Own(error) => error.zh(),
        }
    }
}

/// What is wrong and what to do, of a text that says both with a semicolon between them; `else_do` where it says only what.
pub(super) fn parted(text: &Text, else_do: &Text) -> (Text, Text) {
    let (en, en_remedy) = text.en.split_once("; ").unwrap_or((&text.en, &else_do.en));
    let (zh, zh_remedy) = text.zh.split_once('；').unwrap_or((&text.zh, &else_do.zh));
    let both = |zh: &str, en: &str| Text { zh: zh.to_owned(), en: en.to_owned() };
    (both(zh, en), both(zh_remedy, en_remedy))
}

#[cfg(test)]
mod tests {
    use std::io;

    use jiff::Timestamp;

    use super::*;

    #[test]
    fn every_error_says_in_both_languages_what_is_wrong_and_what_to_do() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let key: fn() -> KeyError = || KeyError::NoKey("k.pem".into());
        let texts = [
            KeyError::File { path: "k.pem".into(), source: denied() }.text(),
            KeyError::Exposed { path: "k.pem".into(), mode: 0o644 }.text(),
            key().text(),
            CertificateError::Unreadable { origin: "c.pem".into(), why: "empty".into() }.text(),
            CertificateError::OtherKey.text(),
            CertificateError::OtherName { found: "a.b".into(), wanted: "c.d".into() }.text(),
            CertificateError::Expired(Timestamp::UNIX_EPOCH).text(),
            CertificateError::NotYet(Timestamp::UNIX_EPOCH).text(),
            CertificateError::OtherAuthority { authorities: "ca.pem".into(), why: "unknown".into() }.text(),
            CertificateError::Key(key()).text(),
            SlotError::Disk { doing: "write", folder: "identity".into(), source: denied() }.text(),
            SlotError::NoRequest.text(),
            TlsProblem::File { path: "ca.pem".into(), source: denied() }.text(),
            TlsProblem::NotEnrolled.text(),
            TlsProblem::Crl { path: "crl.pem".into(), why: "expired".into() }.text(),
            TlsProblem::Mismatch { cert: "c.pem".into(), key: "k.pem".into() }.text(),
            EstError::Own(TlsProblem::NotEnrolled).text(),
        ];
        let none = Text { zh: String::new(), en: String::new() };
        for text in texts {
            let (what, remedy) = parted(&text, &none);
            let chinese = |text: &str| text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
            assert!(chinese(&what.zh) && chinese(&remedy.zh), "{text:?}");
            assert!(!chinese(&what.en) && !what.en.is_empty(), "{text:?}");
            // The one that says its remedy after a colon has it all the same.
            assert!(!remedy.en.is_empty() || text.en.contains("chmod"), "{text:?}");
        }
    }
}
