//! The rows. Each is a short story: what goes wrong, what `status` must show meanwhile, and how the fault ends. What must be true afterwards is the same for
//! all, and said in [`crate::judge`]. This file owns the stories and nothing that acts.

use std::time::Duration;

use gengfu::config::Protocol;
use hil_tests::broker::Memory;
use hil_tests::ca::Validity;
use hil_tests::mqtt_packet::{Kind, Limit};
use hil_tests::mqtt_proxy::{Direction, Fault, Rule, Seen};

use crate::world::{ACL, ACL_WITHOUT_EVENTS};

/// One row of the matrix.
pub struct Row {
    /// What goes wrong.
    pub name: &'static str,
    /// Only in this MQTT version.
    pub on: Option<Protocol>,
    /// How everything is set up before.
    pub setting: Setting,
    /// How order shows.
    pub order: Order,
    /// What happens, in order.
    pub story: &'static [Step],
    /// What else must be true of the packets that passed between gateway and broker.
    pub check: Option<Check>,
}

/// Judges the packets that passed; the fault in words.
pub type Check = fn(&[Seen]) -> Result<(), String>;

/// The surroundings before anything goes wrong.
#[derive(Debug, Clone, Copy)]
pub enum Setting {
    /// Nothing special.
    Plain,
    /// The broker has an access list, the gateway a name.
    Acl,
    /// The broker has these lines more.
    Broker(&'static [&'static str]),
    /// Mutual TLS between gateway and broker.
    Tls,
    /// The gateway's clock is off by this.
    Clock(&'static str),
}

/// Where the order within a lane must show. First sendings are in order too, unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Events also arrive at the centre in order for the first time.
    Arrival,
    /// The fault takes single messages out of the stream, so these arrive later than their successors.
    Sending,
    /// Single messages are refused before they are sent, and wait: others pass them.
    Refused,
}

/// A step of a story.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// Rules between gateway and broker.
    Strike(fn() -> Vec<Rule>),
    /// Rules between desk and broker.
    StrikeDesk(fn() -> Vec<Rule>),
    /// Until rules have struck so often in all.
    Struck(u64),
    /// Until so many more events have happened at the nodes.
    Live(usize),
    /// Until `status` shows this state of the uplink, for this cause (any, where it is empty), with its remedy in both languages.
    Shows { state: &'static str, cause: &'static str },
    /// Until `status` gives this cause, refused or offline: the broker ends one connection after the other, and `status` may be read in or between them.
    Tells(&'static str),
    /// The gateway's connection is closed.
    Cut,
    /// The gateway's connection is reset.
    Reset,
    /// Nothing more is read in this direction of the gateway's connection.
    Stall(Direction),
    /// The desk can read only so many bytes a second.
    DeskRate(u32),
    /// The desk stands still: it reads nothing and says nothing.
    DeskStands(bool),
    /// The desk has no connection.
    DeskAway(bool),
    /// SIGSTOP.
    BrokerFreezes,
    /// SIGKILL.
    BrokerKilled,
    /// It is started again.
    BrokerBack(Memory),
    /// It is killed and started again with these lines more.
    BrokerWith(&'static [&'static str]),
    /// It has this access list from now on.
    Acl(&'static str),
    /// It is restarted with another certificate.
    BrokersCertificate { validity: Validity, of_a_stranger: bool },
    /// The gateway gets another certificate, and the broker is restarted.
    GatewaysCertificate(Validity),
    /// The gateway's certificate is revoked, and the broker restarted.
    RevokeGateway,
    /// The gateway's clock is off by this from now on.
    Clock(&'static str),
    /// Until `status` says how the clock is: where the kernel does not hold it for synchronised, among the findings with a remedy.
    TellsClock,
    /// Until the certificate that the gateway uses is over, by this machine's clock.
    CertificateEnds,
    /// Until `status` has a finding with these words, with problem and remedy in both languages.
    Finds(&'static str),
    /// What the proxies do and a frozen broker end.
    Heal,
}

use Direction::{ToClient, ToServer};
use Order::{Arrival, Refused, Sending};
use Setting::Plain;
use Step::{
    Acl, BrokerBack, BrokerFreezes, BrokerKilled, BrokerWith, BrokersCertificate, CertificateEnds, Clock, Cut,
    DeskAway, DeskRate, DeskStands, Finds, GatewaysCertificate, Heal, Live, Reset, RevokeGateway, Shows, Stall, Strike,
    StrikeDesk, Struck, Tells, TellsClock,
};

const ONLINE: Step = Shows { state: "online", cause: "" };
/// The connection ended and the broker did not say why: closed, reset, or nobody there.
const GONE: Step = Shows { state: "offline", cause: "broker_unreachable" };
/// The connection was given up because the broker did not answer.
const SILENT: Step = Shows { state: "offline", cause: "no_puback" };

const fn row(name: &'static str, order: Order, story: &'static [Step]) -> Row {
    Row { name, on: None, setting: Plain, order, story, check: None }
}

const fn on_5(row: Row) -> Row {
    Row { on: Some(Protocol::Mqtt5), ..row }
}

const fn on_3_1_1(row: Row) -> Row {
    Row { on: Some(Protocol::Mqtt311), ..row }
}

const fn with(setting: Setting, row: Row) -> Row {
    Row { setting, ..row }
}

fn puback(fault: Fault) -> Rule {
    Rule::new(ToClient, Kind::PubAck, fault).topic_has("/event")
}

fn publish(fault: Fault) -> Rule {
    Rule::new(ToServer, Kind::Publish, fault).topic_has("/event")
}

/// The next CONNACK is late, so that the state before it can be seen.
fn slow_return() -> Rule {
    Rule::new(ToClient, Kind::ConnAck, Fault::Late(Duration::from_millis(1500))).times(1)
}

/// Between gateway and broker, and behind the broker.
pub const WAY: &[Row] = &[
    row(
        "PUBACK lost",
        Arrival,
        &[Strike(|| vec![puback(Fault::Drop).skip(3).times(1), slow_return()]), SILENT, ONLINE],
    ),
    row(
        "PUBACKs of a second lost",
        Arrival,
        &[Strike(|| vec![puback(Fault::Drop).times(12), slow_return()]), Struck(12), SILENT, ONLINE],
    ),
    row(
        "PUBACK delayed",
        Arrival,
        &[Strike(|| vec![puback(Fault::Delay(Duration::from_secs(3))).times(10)]), Struck(10), Live(20), ONLINE],
    ),
    row(
        "PUBACK delayed beyond all patience",
        Arrival,
        &[
            Strike(|| vec![puback(Fault::Delay(Duration::from_secs(15))).skip(2).times(3), slow_return()]),
            SILENT,
            ONLINE,
        ],
    ),
    // The MQTT client takes a second PUBACK for a fault and the connection is made anew, so few are enough.
    row(
        "PUBACK repeated",
        Arrival,
        &[
            Strike(|| vec![puback(Fault::Repeat(2)).times(4)]),
            Struck(4),
            Live(10),
            Shows { state: "online", cause: "" },
        ],
    ),
    row(
        "session lost at the broker",
        Arrival,
        &[
            Strike(|| vec![Rule::new(ToServer, Kind::Connect, Fault::CleanStart).times(2), slow_return()]),
            Live(5),
            Cut,
            GONE,
            ONLINE,
            Live(10),
            Cut,
            Struck(3),
            ONLINE,
        ],
    ),
    row(
        "session said to be lost",
        Arrival,
        &[
            Strike(|| vec![Rule::new(ToClient, Kind::ConnAck, Fault::NoSession).times(2)]),
            Live(5),
            Cut,
            Struck(1),
            ONLINE,
            Live(10),
            Cut,
            Struck(2),
            ONLINE,
        ],
    ),
    row("broker killed", Arrival, &[Live(5), BrokerKilled, GONE, Live(30), BrokerBack(Memory::Keep), ONLINE]),
    row(
        "broker restarted with empty state",
        Sending,
        &[
            Live(5),
            BrokerKilled,
            GONE,
            Live(30),
            BrokerBack(Memory::Empty),
            ONLINE,
            Live(10),
            BrokerBack(Memory::Empty),
        ],
    ),
    on_5(row(
        "nobody is subscribed",
        Sending,
        &[
            Live(5),
            DeskAway(true),
            BrokerBack(Memory::Empty),
            // A broker of 3.1.1 cannot say so: there it is a centre that was never heard.
            Shows { state: "no_receipts", cause: "nobody_subscribed" },
            Live(20),
            DeskAway(false),
            ONLINE,
        ],
    )),
    row("broker stalled", Arrival, &[Live(5), BrokerFreezes, SILENT, Live(20), Heal, ONLINE]),
    row(
        "TCP reset in the middle of a PUBLISH",
        Arrival,
        &[
            Strike(|| vec![publish(Fault::ResetAfter(40)).skip(3).times(1), slow_return()]),
            GONE,
            Strike(|| vec![publish(Fault::ResetAfter(700)).skip(8).times(1)]),
            Struck(3),
            Live(10),
            ONLINE,
        ],
    ),
    row(
        "connection ended in the middle of a PUBLISH",
        Arrival,
        &[
            Strike(|| vec![publish(Fault::CutAfter(1)).skip(3).times(1), slow_return()]),
            GONE,
            Strike(|| vec![publish(Fault::CutAfter(usize::MAX)).skip(8).times(1)]),
            Struck(3),
            Live(10),
            ONLINE,
        ],
    ),
    row(
        "six resets in a row, each in a PUBLISH",
        Sending,
        &[Strike(|| vec![publish(Fault::ResetAfter(300)).skip(3).times(6)]), Struck(6), Live(20), ONLINE],
    ),
    row("TCP reset at rest", Arrival, &[Strike(|| vec![slow_return()]), Live(8), Reset, GONE, Live(8), ONLINE]),
    row(
        "everything swallowed both ways",
        Arrival,
        &[
            Strike(|| {
                let swallow = |direction, kind| Rule::new(direction, kind, Fault::Swallow).times(1);
                vec![swallow(ToServer, Kind::Publish), swallow(ToClient, Kind::PubAck), slow_return()]
            }),
            SILENT,
            Live(10),
            Heal,
            ONLINE,
        ],
    ),
    row("gateway cannot write", Arrival, &[Live(5), Stall(ToServer), SILENT, Live(10), Heal, ONLINE]),
    row("gateway is not answered", Arrival, &[Live(5), Stall(ToClient), SILENT, Live(10), Heal, ONLINE]),
    with(
        Setting::Acl,
        on_5(row(
            "ACL refuses events",
            Sending,
            &[
                Live(5),
                Acl(ACL_WITHOUT_EVENTS),
                Shows { state: "refused", cause: "not_authorized" },
                Live(10),
                Acl(ACL),
                ONLINE,
            ],
        )),
    ),
    with(
        Setting::Acl,
        on_3_1_1(row(
            "ACL refuses events in silence",
            Sending,
            &[
                Live(5),
                Acl(ACL_WITHOUT_EVENTS),
                Cut,
                Shows { state: "no_receipts", cause: "dropped_in_silence" },
                Live(10),
                Acl(ACL),
                ONLINE,
            ],
        )),
    ),
    with(
        Setting::Acl,
        on_3_1_1(row(
            "ACL refuses events in silence, after receipts",
            Sending,
            &[
                Live(20),
                Acl(ACL_WITHOUT_EVENTS),
                Shows { state: "no_receipts", cause: "dropped_in_silence" },
                Live(10),
                Acl(ACL),
                ONLINE,
            ],
        )),
    ),
    on_5(row(
        "quota: PUBLISH refused with 0x97",
        Sending,
        &[
            Strike(|| vec![publish(Fault::Refuse(0x97)).skip(3).times(6)]),
            Shows { state: "refused", cause: "quota_exceeded" },
            Struck(6),
            ONLINE,
        ],
    )),
    on_5(row(
        "quota: taken, but said to be refused",
        Sending,
        &[Strike(|| vec![puback(Fault::Reason(0x97)).skip(3).times(6)]), Struck(6), Live(10), ONLINE],
    )),
    on_5(row(
        "quota: DISCONNECT 0x97",
        Arrival,
        &[
            Strike(|| vec![publish(Fault::Disconnect(0x97)).skip(3).times(1), slow_return()]),
            Shows { state: "offline", cause: "quota_exceeded" },
            ONLINE,
        ],
    )),
    on_5(row(
        "DISCONNECT 0x95, packet too large",
        Arrival,
        &[
            Strike(|| vec![publish(Fault::Disconnect(0x95)).skip(3).times(1), slow_return()]),
            Shows { state: "offline", cause: "packet_too_large" },
            ONLINE,
        ],
    )),
    with(
        Setting::Broker(&["max_queued_messages 20"]),
        row(
            "quota: the broker's queue for the centre is full",
            Sending,
            &[
                Live(5),
                DeskAway(true),
                Live(60),
                Shows { state: "no_receipts", cause: "centre_away" },
                DeskAway(false),
                ONLINE,
            ],
        ),
    ),
    Row {
        check: Some(one_at_a_time),
        ..on_5(row(
            "broker takes one message at a time",
            Arrival,
            &[
                Strike(|| vec![Rule::new(ToClient, Kind::ConnAck, Fault::Limit(Limit::ReceiveMaximum(1)))]),
                Cut,
                Struck(1),
                Live(40),
                ONLINE,
            ],
        ))
    },
    on_5(row(
        "packet larger than the broker allows",
        Refused,
        &[Live(5), BrokerWith(&["max_packet_size 1100"]), Tells("packet_too_large"), Live(10), BrokerWith(&[]), ONLINE],
    )),
    on_3_1_1(row(
        "packet larger than the broker allows",
        Refused,
        &[Live(5), BrokerWith(&["max_packet_size 1100"]), Tells("broker_hangs_up"), Live(10), BrokerWith(&[]), ONLINE],
    )),
    on_5(row(
        "message larger than the broker stores",
        Refused,
        &[
            Live(5),
            BrokerWith(&["message_size_limit 900"]),
            // mosquitto answers with 0x95, a reason that a PUBACK cannot have; it is known by that all the same.
            Tells("packet_too_large"),
            Live(10),
            BrokerWith(&[]),
            ONLINE,
        ],
    )),
    on_3_1_1(row(
        "message larger than the broker stores",
        Sending,
        &[
            Live(5),
            BrokerWith(&["message_size_limit 900"]),
            // Small ones are passed on and get their receipts; large ones are acknowledged and dropped.
            Shows { state: "no_receipts", cause: "dropped_in_silence" },
            Live(10),
            BrokerWith(&[]),
            ONLINE,
        ],
    )),
    row(
        "slow centre",
        Sending,
        &[Live(5), DeskRate(6_000), Live(60), Shows { state: "no_receipts", cause: "centre_slow" }, Heal, ONLINE],
    ),
    row(
        "centre stands still",
        Sending,
        &[
            Live(5),
            DeskStands(true),
            Shows { state: "no_receipts", cause: "centre_away" },
            Live(20),
            DeskStands(false),
            ONLINE,
        ],
    ),
    row(
        "receipts lost on their way",
        Sending,
        &[
            StrikeDesk(|| {
                vec![Rule::new(ToServer, Kind::Publish, Fault::Refuse(0)).topic_has("/cmd/receipt/").times(20)]
            }),
            Struck(20),
            // A receipt that is lost cannot be told from one that is late: others came within the last minute.
            Shows { state: "no_receipts", cause: "centre_slow" },
            ONLINE,
        ],
    ),
];

/// Mutual TLS.
pub const TLS: &[Row] = &[
    with(
        Setting::Tls,
        row(
            "TLS: the broker's certificate has expired",
            Arrival,
            &[
                Live(5),
                BrokersCertificate { validity: Validity::Expired, of_a_stranger: false },
                Shows { state: "offline", cause: "tls_failed" },
                Live(20),
                BrokersCertificate { validity: Validity::Now, of_a_stranger: false },
                ONLINE,
            ],
        ),
    ),
    with(
        Setting::Tls,
        row(
            "TLS: the broker's certificate is of another CA",
            Arrival,
            &[
                Live(5),
                BrokersCertificate { validity: Validity::Now, of_a_stranger: true },
                Shows { state: "offline", cause: "tls_failed" },
                Live(20),
                BrokersCertificate { validity: Validity::Now, of_a_stranger: false },
                ONLINE,
            ],
        ),
    ),
    with(
        Setting::Tls,
        row(
            "TLS: our certificate has expired",
            Arrival,
            &[
                Live(5),
                // It is good when it is tried, and ends while it is in use.
                GatewaysCertificate(Validity::Around {
                    since: Duration::from_secs(3600),
                    left: Duration::from_secs(40),
                }),
                CertificateEnds,
                BrokerBack(Memory::Keep),
                Shows { state: "offline", cause: "tls_failed" },
                Live(20),
                GatewaysCertificate(Validity::Now),
                ONLINE,
            ],
        ),
    ),
    with(
        Setting::Tls,
        row(
            "TLS: new files with an expired certificate",
            Arrival,
            &[
                Live(5),
                GatewaysCertificate(Validity::Expired),
                // They are tried beside the connection that stands, and not taken.
                Finds("were tried and fail"),
                ONLINE,
                Live(20),
                GatewaysCertificate(Validity::Now),
                ONLINE,
            ],
        ),
    ),
    with(
        Setting::Tls,
        row(
            "TLS: our certificate is revoked",
            Arrival,
            &[
                Live(5),
                RevokeGateway,
                Shows { state: "offline", cause: "tls_failed" },
                Live(20),
                GatewaysCertificate(Validity::Now),
                ONLINE,
            ],
        ),
    ),
];

/// The gateway's clock.
pub const CLOCK: &[Row] = &[
    with(
        Setting::Clock("-20000d"),
        row("clock: unset (1971), then set", Arrival, &[Live(40), TellsClock, ONLINE, Clock("+0"), Live(40), ONLINE]),
    ),
    with(
        Setting::Clock("+0"),
        row(
            "clock: set back by an hour",
            Arrival,
            &[Live(20), Clock("-3600"), Live(40), TellsClock, Cut, Live(20), ONLINE],
        ),
    ),
    with(
        Setting::Clock("+0"),
        row(
            "clock: set forward by a day",
            Arrival,
            &[Live(20), Clock("+1d"), Live(40), TellsClock, Cut, Live(20), ONLINE],
        ),
    ),
];

/// A broker that takes one message at a time was never sent a second one before its PUBACK.
fn one_at_a_time(seen: &[Seen]) -> Result<(), String> {
    let mut open = 0_u32;
    let mut most = 0;
    let limited = seen.iter().filter(|seen| seen.connection > 1);
    let mut connection = 0;
    for packet in limited {
        if packet.connection != connection {
            (connection, open) = (packet.connection, 0);
        }
        match (packet.direction, packet.kind) {
            (ToServer, Kind::Publish) if packet.id.is_some() => open += 1,
            (ToClient, Kind::PubAck) => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    if most == 1 { Ok(()) } else { Err(format!("{most} messages were on their way to a broker that takes one")) }
}
