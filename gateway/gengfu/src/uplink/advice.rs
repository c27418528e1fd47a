//! What can be wrong on the way to the dispatch centre, and what a technician does about it, in Chinese and English.
//!
//! Owns the list of causes: each has a word for machines (`gengfu status --json`), a name for people and a remedy, and none is without. It refuses to
//! find out which one it is; that is [`super::connection`]'s, [`super::missing`]'s and [`super::status`]'s.

use gengfu_contract::words::Text;
use serde::{Deserialize, Serialize};

/// A cause. The word of `gengfu status --json` is its name in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Not reached, or it does not speak MQTT.
    BrokerUnreachable,
    /// TLS failed: authority, name, validity, or our certificate.
    TlsFailed,
    /// User, password or certificate are not accepted (CONNACK).
    LoginRefused,
    /// The MQTT version is not spoken.
    ProtocolRefused,
    /// The client id is not accepted.
    ClientIdRefused,
    /// CONNACK refused for another reason.
    ConnectionRefused,
    /// Another client came with our client id.
    SessionTakenOver,
    /// The broker ended the connection (MQTT 5 DISCONNECT).
    BrokerEnded,
    /// It took messages, or a ping, and did not answer in time.
    NoPuback,
    /// We left to come back with a new certificate.
    CertificateRenewed,
    /// A certificate file or an option of ours.
    OwnSettings,
    /// The program disagrees with the MQTT client library.
    OwnFault,
    /// The outbox cannot be read or written.
    StoreFault,
    /// The subscription to commands was refused: no receipt can arrive.
    SubscriptionRefused,
    /// PUBACK 0x87: the ACL does not let us publish there.
    NotAuthorized,
    /// PUBACK 0x97: the broker's quota for us is used up.
    QuotaExceeded,
    /// PUBACK 0x99: the broker wants another payload format.
    PayloadFormatInvalid,
    /// PUBACK or DISCONNECT 0x95, or larger than the CONNACK allows.
    PacketTooLarge,
    /// PUBACK 0x90: a topic the broker does not take.
    TopicInvalid,
    /// PUBACK with another reason.
    PublishRefused,
    /// Items are lost with the connection again and again: the broker hangs up on them.
    BrokerHangsUp,
    /// The centre has said that it is away, or its will did.
    CentreAway,
    /// The centre has not shown itself on this broker at all.
    CentreNeverHeard,
    /// Receipts come, but late.
    CentreSlow,
    /// The centre says it is there, and sends no receipts.
    CentreSilent,
    /// MQTT 5: the broker takes our events and says that nobody is subscribed to them.
    NobodySubscribed,
    /// MQTT 3.1.1: the broker acknowledges some of our events, or all, and passes them on to nobody.
    DroppedInSilence,
    /// MQTT 3.1.1: the centre is silent, or the broker drops our events; we may not read them ourselves and cannot tell.
    SilentOrDropped,
    /// All is well, but on another broker than the preferred one.
    OnOtherBroker,
}

/// Something wrong, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// Which.
    pub cause: Cause,
    /// What.
    pub problem: Text,
    /// What to do.
    pub remedy: Text,
}

/// A text of two languages.
pub(crate) fn text(zh: impl Into<String>, en: impl Into<String>) -> Text {
    Text { zh: zh.into(), en: en.into() }
}

impl Cause {
    /// All of them.
    pub const ALL: [Cause; 29] = [
        Cause::BrokerUnreachable,
        Cause::TlsFailed,
        Cause::LoginRefused,
        Cause::ProtocolRefused,
        Cause::ClientIdRefused,
        Cause::ConnectionRefused,
        Cause::SessionTakenOver,
        Cause::BrokerEnded,
        Cause::NoPuback,
        Cause::CertificateRenewed,
        Cause::OwnSettings,
        Cause::OwnFault,
        Cause::StoreFault,
        Cause::SubscriptionRefused,
        Cause::NotAuthorized,
        Cause::QuotaExceeded,
        Cause::PayloadFormatInvalid,
        Cause::PacketTooLarge,
        Cause::TopicInvalid,
        Cause::PublishRefused,
        Cause::BrokerHangsUp,
        Cause::CentreAway,
        Cause::CentreNeverHeard,
        Cause::CentreSlow,
        Cause::CentreSilent,
        Cause::NobodySubscribed,
        Cause::DroppedInSilence,
        Cause::SilentOrDropped,
        Cause::OnOtherBroker,
    ];

    /// The broker does not take a message.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        use Cause::{NotAuthorized, PacketTooLarge, PayloadFormatInvalid, PublishRefused, QuotaExceeded, TopicInvalid};
        matches!(
            self,
            NotAuthorized | QuotaExceeded | PayloadFormatInvalid | PacketTooLarge | TopicInvalid | PublishRefused
        )
    }

    /// Its words, with `detail` in parentheses (a broker's own words, an address, a number); none when it is empty.
    #[must_use]
    pub fn advice(self, detail: &str) -> Advice {
        let (zh, en, remedy_zh, remedy_en) = self.words();
        let problem = if detail.is_empty() {
            text(zh, en)
        } else {
            text(format!("{zh}（{detail}）"), format!("{en} ({detail})"))
        };
        Advice { cause: self, problem, remedy: text(remedy_zh, remedy_en) }
    }

    /// Problem and remedy: zh, en, zh, en.
    fn words(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Cause::NotAuthorized
            | Cause::QuotaExceeded
            | Cause::PayloadFormatInvalid
            | Cause::PacketTooLarge
            | Cause::TopicInvalid
            | Cause::PublishRefused
            | Cause::BrokerHangsUp
            | Cause::SubscriptionRefused => self.words_of_a_refusal(),
            Cause::CentreAway
            | Cause::CentreNeverHeard
            | Cause::CentreSlow
            | Cause::CentreSilent
            | Cause::NobodySubscribed
            | Cause::DroppedInSilence
            | Cause::SilentOrDropped => self.words_without_receipts(),
            _ => self.words_of_a_connection(),
        }
    }

    fn words_of_a_connection(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Cause::TlsFailed => (
                "无法与消息服务器建立加密连接",
                "no connection to the broker",
                "检查 CA 证书、证书名称和有效期，以及本网关时钟",
                "check the CA, the certificate's name and validity, and this gateway's clock",
            ),
            Cause::LoginRefused => (
                "消息服务器拒绝连接",
                "the broker refused the connection",
                "核对用户名、密码文件和证书是否与服务器一致",
                "check username, password file and certificate against the broker's",
            ),
            Cause::ProtocolRefused => (
                "消息服务器拒绝连接",
                "the broker refused the connection",
                "在 [uplink] protocol 中改用另一个 MQTT 版本",
                "set the other MQTT version in [uplink] protocol",
            ),
            Cause::ClientIdRefused => (
                "消息服务器拒绝连接",
                "the broker refused the connection",
                "设置服务器允许的 client_id",
                "set a client_id that the broker allows",
            ),
            Cause::ConnectionRefused => {
                ("消息服务器拒绝连接", "the broker refused the connection", "查看服务器日志", "read the broker's log")
            }
            Cause::SessionTakenOver => (
                "连接被另一客户端抢占",
                "the broker ended the connection: another client came with our client id",
                "两个客户端使用了同一 client_id：停用其中一个，或改名",
                "two clients use one client id: stop one of them, or give it another client_id",
            ),
            Cause::BrokerEnded => (
                "消息服务器断开了连接",
                "the broker ended the connection",
                "查看服务器日志；网关会自动重连",
                "read the broker's log; the gateway connects anew",
            ),
            Cause::NoPuback => (
                "消息服务器未在时限内应答",
                "the broker does not answer in time",
                "检查网络和服务器负载；网关会重新连接",
                "check the network and the broker's load; the gateway connects anew",
            ),
            Cause::CertificateRenewed => (
                "证书已更新",
                "the certificate was renewed",
                "无需处理：网关正用新证书重新连接",
                "nothing to do: the gateway connects with the new one",
            ),
            Cause::OwnSettings => (
                "上行连接的设置有误",
                "a setting of the uplink cannot be used",
                "检查 [uplink] 及其证书文件；网关会自动重试",
                "check [uplink] and its certificate files; the gateway tries again by itself",
            ),
            Cause::OwnFault => (
                "网关程序内部不一致",
                "the gateway and its MQTT client disagree",
                "网关会重新连接；若反复出现请上报",
                "the gateway connects anew; please report it if it repeats",
            ),
            Cause::StoreFault => (
                "存储故障",
                "the store fails",
                "检查磁盘；网关会自动重试",
                "check the disk; the gateway tries again by itself",
            ),
            Cause::OnOtherBroker => (
                "正在使用备用消息服务器",
                "another broker than the preferred one is in use",
                "检查首选服务器；恢复后网关会在空闲时自动切回",
                "see to the preferred broker; the gateway returns to it by itself at a quiet moment",
            ),
            _ => (
                "无法连接消息服务器",
                "no connection to the broker",
                "检查网络、服务器地址和端口，以及服务器是否运行",
                "check the network, the broker's address and port, and that the broker runs",
            ),
        }
    }

    fn words_of_a_refusal(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Cause::SubscriptionRefused => (
                "服务器拒绝订阅指令，无法收到回执",
                "the broker refused the subscription to commands; receipts cannot arrive",
                "在服务器 ACL 中允许本用户读取其 cmd/# 和本站点 dispatch/status",
                "allow this user to read its cmd/# and the site's dispatch/status in the broker's ACL",
            ),
            Cause::NotAuthorized => (
                "服务器不允许发布",
                "the broker refuses what is published: not authorised",
                "在服务器 ACL 中允许本用户写入该主题",
                "allow this user to write that topic in the broker's ACL",
            ),
            Cause::QuotaExceeded => (
                "服务器配额已满",
                "the broker refuses what is published: quota exceeded",
                "提高服务器对本用户的配额或清空积压；网关保留消息并逐步重试",
                "raise the broker's quota for this user, or let the centre take what waits there; it is kept and tried again with growing pauses",
            ),
            Cause::PayloadFormatInvalid => (
                "服务器不接受消息格式",
                "the broker refuses what is published: payload format invalid",
                "关闭服务器对这些主题的格式检查，或允许 JSON 与 JPEG",
                "turn off the broker's check of payloads for these topics, or let it take JSON and JPEG",
            ),
            Cause::PacketTooLarge => (
                "消息超过服务器的大小限制",
                "the broker refuses what is published: packet too large",
                "提高服务器的最大报文长度；MQTT 3.1.1 时在 [uplink] packet_kib_max 中填写服务器的限制",
                "raise the broker's largest packet size; on MQTT 3.1.1 give the broker's limit in [uplink] packet_kib_max",
            ),
            Cause::TopicInvalid => (
                "服务器不接受主题名",
                "the broker refuses what is published: topic name invalid",
                "检查服务器的主题限制（层数、长度）；主题以 gengfu/v1/ 开头",
                "check the broker's rules for topics (levels, length); ours begin with gengfu/v1/",
            ),
            Cause::BrokerHangsUp => (
                "服务器收到这些消息后即断开连接",
                "the broker closes the connection when it is sent these items",
                "检查服务器 ACL 是否允许写入，以及最大报文长度；查看服务器日志",
                "allow this user to write its topics in the broker's ACL, and check the broker's packet size and log",
            ),
            _ => (
                "服务器拒绝消息",
                "the broker refuses what is published",
                "查看服务器日志；在 ACL 中允许本用户写入其主题",
                "read the broker's log; allow this user to write its topics in the broker's ACL",
            ),
        }
    }

    fn words_without_receipts(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Cause::CentreAway => (
                "调度中心已离线",
                "without the dispatch centre's receipt in time: the centre is away",
                "联系调度中心恢复连接；全部消息已保存，将自动补发",
                "the dispatch centre says it is away: ask it to connect; everything is kept and sent again",
            ),
            Cause::CentreNeverHeard => (
                "未收到调度中心回执：中心未在此服务器上出现",
                "without the dispatch centre's receipt in time: the centre was not seen on this broker",
                "确认调度中心已运行、连接同一服务器、订阅本站点并发布 dispatch/status；并在服务器 ACL 中允许本用户读取 dispatch/status 和 cmd/#",
                "check that the dispatch centre runs, connects to this broker, subscribes to this site and publishes dispatch/status; and that the broker's ACL lets this user read that and its cmd/#",
            ),
            Cause::CentreSlow => (
                "调度中心回执过慢",
                "without the dispatch centre's receipt in time: receipts come, but late",
                "调度中心处理过慢：检查其负载和存储；消息会重发，编号不变",
                "the dispatch centre is slow: look at its load and its store; items are sent again with the same ids",
            ),
            Cause::NobodySubscribed => (
                "服务器上无人订阅本网关的事件，调度中心未收到",
                "nobody is subscribed to this gateway's events at the broker: the dispatch centre does not get them",
                "确认调度中心已连接同一服务器，并以持久会话订阅本站点；其会话可能已过期或随服务器重启丢失。全部消息已保存，将自动补发",
                "check that the dispatch centre is connected to this broker and subscribes to this site with a session that lasts; its session may have expired, or been lost with a restart of the broker. Everything is kept and sent again",
            ),
            Cause::DroppedInSilence => (
                "服务器确认了消息但未转发（MQTT 3.1.1 静默丢弃）",
                "without the dispatch centre's receipt in time: the broker acknowledges events of ours and passes them on to nobody",
                "检查服务器 ACL：允许本用户写入其 event 主题；并检查其消息长度上限。MQTT 3.1.1 服务器会静默丢弃不接受的消息；改用 MQTT 5 可立即看到原因",
                "check the broker's ACL: let this user write its event topic; and check its largest message size. On MQTT 3.1.1 a broker drops in silence what it does not take; MQTT 5 would tell at once",
            ),
            Cause::SilentOrDropped => (
                "未收到调度中心回执：中心无应答，或服务器静默丢弃了消息（MQTT 3.1.1）",
                "without the dispatch centre's receipt in time: it is silent, or the broker drops our events in silence (MQTT 3.1.1)",
                "确认调度中心订阅了本站点，且服务器 ACL 允许本用户写入 event 主题并接受该长度的消息；允许本用户读取其 event 主题后网关可自行判断，或改用 MQTT 5",
                "check that the dispatch centre subscribes to this site, and that the broker's ACL lets this user write its event topic and takes messages of that size; with leave to read its own event topic the gateway can tell which it is, and MQTT 5 would tell at once",
            ),
            _ => (
                "未收到调度中心回执",
                "without the dispatch centre's receipt in time: it is there and silent",
                "确认调度中心订阅了本站点，且服务器 ACL 允许其写入 cmd/receipt、允许本用户读取 cmd/#",
                "check that the dispatch centre subscribes to this site, and that the broker's ACL lets it write cmd/receipt and lets this user read its cmd/#",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_cause_has_a_word_a_name_and_a_remedy_in_both_languages() {
        let chinese = |text: &str| text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
        let mut words = BTreeSet::new();
        for cause in Cause::ALL {
            let advice = cause.advice("x: 1");
            assert!(chinese(&advice.problem.zh) && chinese(&advice.remedy.zh), "{advice:?}");
            assert!(!chinese(&advice.problem.en) && !chinese(&advice.remedy.en), "{advice:?}");
            assert!(advice.problem.en.ends_with("(x: 1)") && advice.remedy.en.len() > 10, "{advice:?}");
            words.insert(serde_json::to_string(&cause).unwrap());
        }
        assert_eq!(words.len(), Cause::ALL.len(), "each once");
    }
}
