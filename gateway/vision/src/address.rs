//! The address of a camera or the path of a file. Owns what may be shown of it: user names and passwords are in such addresses in more
//! ways than one, and none of them may reach a log, a status, an error or a debug print. Refuses to open anything.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What stands for everything that is not shown.
const HIDDEN: &str = "***";

/// How an address is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `rtsp://`, `rtsps://`: a stream (RFC 2326).
    Rtsp,
    /// `http://`, `https://`: a JPEG that is asked for again and again, or a `multipart/x-mixed-replace` stream of them.
    Http,
    /// A file's path.
    File,
}

/// Where pictures come from: a path or an `rtsp://`, `rtsps://`, `http://` or `https://` address. Its `Debug` and `Display` never show
/// user name or password; only serde and [`SourceUrl::reveal`] do.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourceUrl(String);

impl SourceUrl {
    /// Wraps an address or path.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The address with its credentials, for connecting only.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Is the text meant as an address, and not as a file's path? True also for one with a slash too few: as a path it would be
    /// shown, password and all.
    #[must_use]
    pub fn is_address(text: &str) -> bool {
        split(text).is_some()
    }

    /// How it is spoken to.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        match split(&self.0).map(|(scheme, _)| scheme.to_ascii_lowercase()).as_deref() {
            Some("rtsp" | "rtsps") => Scheme::Rtsp,
            Some("http" | "https") => Scheme::Http,
            _ => Scheme::File,
        }
    }

    /// Is this a network camera (as opposed to a file)?
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.scheme() != Scheme::File
    }

    /// What is wrong with the address, if anything; holds nothing of the address itself.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.0.trim().is_empty() {
            return Some("is empty; give a file path or rtsp://host/path".to_owned());
        }
        if self.0.contains(char::is_control) {
            return Some("contains a control character; remove it".to_owned());
        }
        let (_, rest) = split(&self.0)?;
        if !self.is_live() {
            return Some(
                "has an unsupported scheme; use rtsp://, rtsps://, http://, https:// or a file path".to_owned(),
            );
        }
        if !rest.starts_with("//") {
            return Some("has a slash too few; use rtsp://host[:port]/path".to_owned());
        }
        if self.0.contains(char::is_whitespace) {
            return Some("contains a space; write %20 for it".to_owned());
        }
        let shown = rest[2..].rsplit_once('@').map_or(&rest[2..], |(_, after)| after);
        let host = shown.split(['/', '?', '#']).next().unwrap_or("");
        if host.is_empty() {
            return Some("names no host; use rtsp://host[:port]/path".to_owned());
        }
        if !is_host(host) {
            return Some(
                "has no proper host; use rtsp://user:password@host[:port]/path, with %40 for @, %2F for / and %3A for : in a password"
                    .to_owned(),
            );
        }
        None
    }
}

/// Scheme and what follows its colon, if the text is meant as an address.
fn split(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.trim_start().split_once(':')?;
    let proper = scheme.len() >= 3 && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    (proper && rest.starts_with('/')).then_some((scheme, rest))
}

/// A host name, IPv4 or bracketed IPv6 address, with a port or without.
fn is_host(text: &str) -> bool {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    if let Some(rest) = text.strip_prefix('[') {
        let Some((inside, after)) = rest.split_once(']') else { return false };
        let bracketed = !inside.is_empty() && inside.bytes().all(|b| b.is_ascii_hexdigit() || b":.%".contains(&b));
        return bracketed && (after.is_empty() || after.strip_prefix(':').is_some_and(is_port));
    }
    match text.split_once(':') {
        Some((name, port)) => is_name(name) && is_port(port),
        None => is_name(text),
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = split(&self.0) else { return f.write_str(&self.0) };
        let rest = rest.trim_start_matches('/');
        // The last '@' ends the credentials: a password may hold an '@' or a '/' that nobody escaped.
        let (mark, shown) = match rest.rsplit_once('@') {
            // It cannot be told whether this '@' ends the credentials or is part of a secret in a query.
            Some((before, _)) if before.contains(['?', '#', ';', '&', '=']) => return write!(f, "{scheme}://{HIDDEN}"),
            Some((_, after)) => ("***@", after),
            None => ("", rest),
        };
        // Cameras also take them as a query, as parameters, or as names and values in the path (`/user=…&password=…`).
        let plain = shown.find(['?', '#', ';', '&', '=']).map_or(shown, |end| &shown[..end]);
        let kept =
            if plain.len() == shown.len() { plain } else { plain.rsplit_once('/').map_or("", |(before, _)| before) };
        let host = kept.split('/').next().unwrap_or("");
        if !is_host(host) {
            return write!(f, "{scheme}://{HIDDEN}");
        }
        let tail = if kept.len() == shown.len() { "" } else { "/***" };
        write!(f, "{scheme}://{mark}{kept}{tail}")
    }
}

impl fmt::Debug for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn credentials_are_never_shown() {
        for url in [
            "rtsp://admin:geheim@10.0.0.7:554/stream1",
            "rtsp://admin:geheim@geheim/x@10.0.0.7/stream1",
            "RTSPS://admin:ge/heim@10.0.0.7/stream1",
            "rtsp://10.0.0.7/stream1?user=admin&password=geheim",
            "http://10.0.0.7/cgi-bin/snap.jpg?loginuse=admin&loginpas=geheim",
            "rtsp://10.0.0.7:554/user=admin&password=geheim&channel=1&stream=0.sdp",
            "rtsp://10.0.0.7/user=admin_password=geheim_channel=1_stream=0.sdp?real_stream",
        ] {
            let url = SourceUrl::new(url);
            for shown in [url.to_string(), format!("{url:?}")] {
                assert!(!shown.contains("heim") && !shown.contains("admin"), "{shown}");
                assert!(shown.contains("10.0.0.7") && shown.contains(HIDDEN), "{shown}");
            }
        }
        assert_eq!(SourceUrl::new("rtsp://10.0.0.7/s").to_string(), "rtsp://10.0.0.7/s");
        assert_eq!(SourceUrl::new("http://cam.lan:81/a/b.jpg").to_string(), "http://cam.lan:81/a/b.jpg");
        assert_eq!(SourceUrl::new("rtsp://[fe80::1]:554/s").to_string(), "rtsp://[fe80::1]:554/s");
    }

    #[test]
    fn mistyped_addresses_are_not_shown_either() {
        for url in [
            "rtsp:/admin:geheim@10.0.0.7/s",
            "rtsp://admin:geheim",
            "ftp://admin:geheim@10.0.0.7/s",
            " rtsp://a:geheim@/",
        ] {
            let url = SourceUrl::new(url);
            assert!(!url.to_string().contains("geheim"), "{url}");
            assert!(url.fault().is_some_and(|fault| !fault.contains("geheim")), "{url}");
        }
    }

    #[test]
    fn addresses_are_checked_before_anything_is_opened() {
        let fault = |url: &str| SourceUrl::new(url).fault().unwrap_or_default();
        assert!(fault(" ").contains("empty"));
        assert!(fault("ftp://x/y").contains("scheme"));
        assert!(fault("rtsp:///y").contains("host"));
        assert!(fault("rtsp:/h/y").contains("slash"));
        assert!(fault("rtsp://h/a b").contains("%20"));
        assert!(fault("rtsp://user:12/34@/x").contains("host"));
        for good in
            ["/a/b.mp4", "b.avi", "rtsp://h/p", "http://h:80/x.jpg", "https://u:p@h/x", "rtsp://u:p%40q@[::1]:554/x"]
        {
            assert_eq!(fault(good), "", "{good}");
        }
        assert!(SourceUrl::is_address("rtsp:/h") && !SourceUrl::is_address("/a:/b") && !SourceUrl::is_address("C:/x"));
    }

    proptest! {
        #[test]
        fn no_place_in_an_address_shows_a_secret(
            scheme in prop::sample::select(vec!["rtsp", "rtsps", "http", "https", "RTSP", "gopher"]),
            // Everything a person may type in a password; "QzQ" marks what must not be shown.
            before in "[ -~]{0,12}", after in "[ -~]{0,12}",
            place in 0..4, slashes in 1..3_usize,
        ) {
            let secret = format!("{before}QzQ{after}");
            let slashes = "/".repeat(slashes);
            let url = match place {
                0 => format!("{scheme}:{slashes}user:{secret}@10.0.0.7:554/live"),
                1 => format!("{scheme}:{slashes}{secret}:pw@10.0.0.7/live"),
                2 => format!("{scheme}:{slashes}10.0.0.7/live?user=u&password={secret}"),
                _ => format!("{scheme}:{slashes}10.0.0.7/user=u&password={secret}&channel=1"),
            };
            let url = SourceUrl::new(url);
            let shown = format!("{url} {url:?} {:?}", url.fault());
            prop_assert!(!shown.contains("QzQ"), "{}", shown);
        }
    }
}
