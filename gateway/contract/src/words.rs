//! The vocabulary of alarms: kinds, lanes, conditions and the CAP 1.2 words.
//!
//! Owns the lists of words that both sides agree on, and the table that gives each kind its words.
//! Refuses thresholds and timers: those are rules, and rules belong to the gateway's `alarm`.
//!
//! A list is *closed* (it changes with the contract's major only: lanes, conditions, CAP words) or *open*: a later version of the
//! same major may add words, and a reader keeps a word it does not know as `Other` and writes it out again unchanged.
//!
//! Source of urgency, severity, certainty and category: OASIS Common Alerting Protocol 1.2, 3.2.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$meta:meta])* $name:ident: $case:literal { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = $case)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word as it stands on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// A word of an open list that this version does not know, kept as it came. At most [`Unknown::MAX_BYTES`] long, so that a reader's
/// memory stays bounded and the lists stay plain values.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unknown {
    bytes: [u8; Self::MAX_BYTES],
    len: u8,
}

impl Unknown {
    /// Longest word any list of this major will ever have, bytes.
    pub const MAX_BYTES: usize = 63;

    /// Keeps `word`; `None` when it is empty or longer than [`Self::MAX_BYTES`].
    #[must_use]
    pub fn new(word: &str) -> Option<Self> {
        let mut bytes = [0; Self::MAX_BYTES];
        let len = u8::try_from(word.len()).ok().filter(|len| *len > 0)?;
        bytes.get_mut(..word.len())?.copy_from_slice(word.as_bytes());
        Some(Self { bytes, len })
    }

    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let word = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        std::str::from_utf8(word).unwrap_or_default()
    }
}

impl std::fmt::Debug for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// An open list: the words of this version, and `Other` for the words of a later one.
macro_rules! open_words {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[doc = $doc])+ $variant,)+
            /// A word of a later version of this major, kept unchanged.
            Other($crate::words::Unknown),
        }

        impl $name {
            /// Every word of this version, in declaration order; never `Other`.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word as it stands on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self { $($name::$variant => $text,)+ $name::Other(word) => word.as_str() }
            }

            /// Reads a word of this version; `None` for any other. What a configuration uses, where an unknown word is an error.
            #[must_use]
            pub fn known(word: &str) -> Option<Self> {
                match word { $($text => Some($name::$variant),)+ _ => None }
            }

            /// True when this version knows the word.
            #[must_use]
            pub fn is_known(&self) -> bool {
                !matches!(self, $name::Other(_))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::known(&word).or_else(|| $crate::words::Unknown::new(&word).map($name::Other)).ok_or_else(|| {
                    serde::de::Error::custom(format_args!(
                        "a word of {} bytes where 1 to {} were expected",
                        word.len(),
                        $crate::words::Unknown::MAX_BYTES
                    ))
                })
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let known = [$(($text, [$($doc),+].concat())),+];
                let mut any: Vec<serde_json::Value> = known
                    .iter()
                    .map(|(word, doc)| serde_json::json!({ "const": word, "description": doc.trim() }))
                    .collect();
                any.push(serde_json::json!({
                    "type": "string", "minLength": 1, "maxLength": $crate::words::Unknown::MAX_BYTES,
                    "description": "A word of a later version of this major: keep it, show it, do not refuse it."
                }));
                schemars::json_schema!({ "type": "string", "anyOf": any })
            }
        }
    };
}
pub(crate) use open_words;

pub(crate) use words;

words! {
    /// The road an item travels, most urgent first. A later lane never delays an earlier one.
    Lane: "snake_case" {
        /// Smoke. Never dropped, never bounded.
        Fire = "fire",
        /// SOS button, personal emergency. Never dropped, never bounded.
        Emergency = "emergency",
        /// The equipment's own faults.
        Trouble = "trouble",
        /// Doors and people living alone.
        Care = "care",
        /// Street cameras: parking, litter, bins.
        City = "city",
        /// Observations that are no alarm.
        Telemetry = "telemetry",
        /// Pictures.
        Evidence = "evidence",
    }
}

impl Lane {
    /// True for the lanes whose items are never dropped and whose missing receipt sounds the box.
    #[must_use]
    pub fn is_life_safety(self) -> bool {
        matches!(self, Lane::Fire | Lane::Emergency)
    }
}

open_words! {
    /// What an alarm (or trouble) is about. Open: a later gateway may know more.
    AlarmKind {
        /// A smoke alarm's head has sensed smoke. Latches.
        Smoke = "smoke",
        /// A personal emergency button was pressed. Latches.
        Sos = "sos",
        /// A door has stood open longer than its limit.
        DoorLeftOpen = "door_left_open",
        /// A device's case was opened. Latches.
        Tamper = "tamper",
        /// A device was not heard for its supervision interval (trouble).
        SensorLost = "sensor_lost",
        /// A device's battery is low (trouble).
        LowBattery = "low_battery",
        /// A device reports its own fault (trouble).
        DeviceFault = "device_fault",
        /// A node says that events were lost before they could be delivered (trouble).
        EventsLost = "events_lost",
        /// A camera gives no usable picture (trouble; GB/T 47678.5-2026 监控设施异常).
        CameraFault = "camera_fault",
        /// A motor vehicle stands in a no-parking zone longer than the zone's limit.
        IllegalParking = "illegal_parking",
        /// A vehicle blocks a fire lane.
        FireLaneBlocked = "fire_lane_blocked",
        /// A bicycle, e-bike or motorcycle stands where none may be left (非机动车乱停放).
        CycleParking = "cycle_parking",
        /// Litter lies exposed on the ground (暴露垃圾).
        Litter = "litter",
        /// Rubbish or rubble has been left to accumulate (积存垃圾渣土).
        AccumulatedWaste = "accumulated_waste",
        /// A bin overflows (垃圾站（箱）满溢).
        BinOverflow = "bin_overflow",
        /// A door was not opened for longer than its home's limit. One alarm, whose [`CareLevel`] rises revision by revision.
        NotOpened = "not_opened",
        /// A door was opened in the night and not again within the limit; which way anybody went cannot be told.
        NightExit = "night_exit",
        /// A door was opened far more often in one night than is usual in this home.
        NightFrequency = "night_frequency",
        /// A device has reached the end of its life and must be replaced (trouble).
        EndOfLife = "end_of_life",
        /// A smoke alarm's chamber is dirty (trouble).
        Contaminated = "contaminated",
        /// A bus that carries devices is down (trouble).
        BusDown = "bus_down",
        /// The gateway's clock cannot be trusted (trouble).
        ClockTrouble = "clock_trouble",
        /// The centre did not confirm a life-safety alarm in time, and the people on site were told so (trouble; `TX_OVERDUE`).
        TxOverdue = "tx_overdue",
        /// A device is heard but has never triggered since long: is it mounted where it should be (trouble, a hint)?
        NeverTriggered = "never_triggered",
        /// The scheduled test of the way to the centre had no receipt in time, or was not held for too long (trouble).
        DrillFailed = "drill_failed",
        /// The gateway's certificate nears its end, is over, or its successor was refused (trouble).
        CertificateExpiring = "certificate_expiring",
    }
}

words! {
    /// How far a not-opened alarm has gone; each level has its own CAP words.
    CareLevel: "snake_case" {
        /// First: call the person.
        Yellow = "yellow",
        /// Second: somebody tries again.
        Orange = "orange",
        /// Third: somebody goes there.
        Red = "red",
    }
}

impl CareLevel {
    /// CAP urgency and severity of the level.
    #[must_use]
    pub fn cap(self) -> (Urgency, Severity) {
        match self {
            CareLevel::Yellow => (Urgency::Future, Severity::Minor),
            CareLevel::Orange => (Urgency::Expected, Severity::Moderate),
            CareLevel::Red => (Urgency::Immediate, Severity::Severe),
        }
    }

    /// The level as people say it.
    #[must_use]
    pub fn title(self) -> Text {
        let (zh, en) = match self {
            CareLevel::Yellow => ("黄色", "yellow"),
            CareLevel::Orange => ("橙色", "orange"),
            CareLevel::Red => ("红色", "red"),
        };
        Text { zh: zh.into(), en: en.into() }
    }
}

words! {
    /// State of an alarm's condition, owned by the gateway (after ISA-18.2 / IEC 62682).
    Condition: "SCREAMING_SNAKE_CASE" {
        /// Nothing is wrong any more; the alarm is over.
        Normal = "NORMAL",
        /// It is so, and no human has acknowledged it.
        ActiveUnack = "ACTIVE_UNACK",
        /// It is so, and a human has acknowledged it.
        ActiveAck = "ACTIVE_ACK",
        /// It is no longer so (or awaits a reset), and no human has acknowledged it.
        ClearedUnack = "CLEARED_UNACK",
        /// It is no longer so and was acknowledged, but it latches: a reset is still due.
        ClearedLatched = "CLEARED_LATCHED",
        /// It was so when last seen; the device that could tell is itself in trouble.
        Unknown = "UNKNOWN",
    }
}

impl Condition {
    /// True until the alarm is over.
    #[must_use]
    pub fn is_open(self) -> bool {
        self != Condition::Normal
    }
}

words! {
    /// CAP 1.2 `status`: whether this is meant, or a drill.
    CapStatus: "PascalCase" {
        /// Meant for action.
        Actual = "Actual",
        /// A drill for people.
        Exercise = "Exercise",
        /// A technical test; no action.
        Test = "Test",
    }
}
words! {
    /// CAP 1.2 `urgency`.
    Urgency: "PascalCase" {
        /// Act at once.
        Immediate = "Immediate",
        /// Act soon (within the hour).
        Expected = "Expected",
        /// Act in the near future.
        Future = "Future",
    }
}
words! {
    /// CAP 1.2 `severity`.
    Severity: "PascalCase" {
        /// Extraordinary threat to life or property.
        Extreme = "Extreme",
        /// Significant threat.
        Severe = "Severe",
        /// Possible threat.
        Moderate = "Moderate",
        /// Minimal threat.
        Minor = "Minor",
    }
}
words! {
    /// CAP 1.2 `certainty`.
    Certainty: "PascalCase" {
        /// Determined to have occurred.
        Observed = "Observed",
        /// Probability above one half.
        Likely = "Likely",
        /// Probability of one half or less.
        Possible = "Possible",
    }
}
words! {
    /// CAP 1.2 `category`.
    Category: "PascalCase" {
        /// Fire suppression and rescue.
        Fire = "Fire",
        /// Rescue and recovery.
        Rescue = "Rescue",
        /// Medical and public health.
        Health = "Health",
        /// General emergency and public safety.
        Safety = "Safety",
        /// Utility, telecommunication, other infrastructure.
        Infra = "Infra",
        /// Public and private transport.
        Transport = "Transport",
        /// Pollution and other environmental.
        Env = "Env",
    }
}

/// The CAP words of one alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cap {
    /// Whether this is meant.
    pub status: CapStatus,
    /// How soon to act.
    pub urgency: Urgency,
    /// How bad it can be.
    pub severity: Severity,
    /// How sure it is.
    pub certainty: Certainty,
    /// Which service it concerns.
    pub category: Category,
}

impl AlarmKind {
    /// The lane this kind travels in. The lane of a kind this version does not know stands in its event; until somebody looks there,
    /// it is urgent and no mere trouble.
    #[must_use]
    pub fn lane(self) -> Lane {
        use AlarmKind::*;
        match self {
            Smoke => Lane::Fire,
            Sos => Lane::Emergency,
            Tamper | SensorLost | LowBattery | DeviceFault | EventsLost | CameraFault | EndOfLife | Contaminated
            | BusDown | ClockTrouble | TxOverdue | NeverTriggered | DrillFailed | CertificateExpiring => Lane::Trouble,
            DoorLeftOpen | NotOpened | NightExit | NightFrequency => Lane::Care,
            IllegalParking | FireLaneBlocked | CycleParking | Litter | AccumulatedWaste | BinOverflow => Lane::City,
            Other(_) => Lane::Emergency,
        }
    }

    /// True for the equipment's own faults, which are never an alarm.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        self.lane() == Lane::Trouble
    }

    /// True when the alarm stays until somebody resets it.
    #[must_use]
    pub fn latches(self) -> bool {
        matches!(self, AlarmKind::Smoke | AlarmKind::Sos | AlarmKind::Tamper)
    }

    /// The CAP words a fresh alarm of this kind starts with (status Actual).
    #[must_use]
    pub fn cap(self) -> Cap {
        use AlarmKind::*;
        let (urgency, severity, certainty, category) = match self {
            Smoke => (Urgency::Immediate, Severity::Extreme, Certainty::Likely, Category::Fire),
            Sos => (Urgency::Immediate, Severity::Severe, Certainty::Observed, Category::Rescue),
            DoorLeftOpen => (Urgency::Future, Severity::Minor, Certainty::Observed, Category::Safety),
            Tamper | SensorLost | DeviceFault | EventsLost | CameraFault | Contaminated | BusDown | ClockTrouble
            | TxOverdue | DrillFailed => (Urgency::Expected, Severity::Moderate, Certainty::Observed, Category::Infra),
            LowBattery | EndOfLife | CertificateExpiring => {
                (Urgency::Future, Severity::Minor, Certainty::Observed, Category::Infra)
            }
            NeverTriggered => (Urgency::Future, Severity::Minor, Certainty::Possible, Category::Infra),
            NotOpened => {
                let (urgency, severity) = CareLevel::Yellow.cap();
                (urgency, severity, Certainty::Possible, Category::Health)
            }
            NightExit => (Urgency::Expected, Severity::Moderate, Certainty::Possible, Category::Safety),
            NightFrequency => (Urgency::Future, Severity::Minor, Certainty::Possible, Category::Health),
            FireLaneBlocked => (Urgency::Expected, Severity::Moderate, Certainty::Likely, Category::Safety),
            IllegalParking | CycleParking => (Urgency::Future, Severity::Minor, Certainty::Likely, Category::Transport),
            Litter | AccumulatedWaste | BinOverflow => {
                (Urgency::Future, Severity::Minor, Certainty::Likely, Category::Env)
            }
            Other(_) => (Urgency::Immediate, Severity::Severe, Certainty::Possible, Category::Safety),
        };
        Cap { status: CapStatus::Actual, urgency, severity, certainty, category }
    }

    /// What people read, in Chinese and English.
    #[must_use]
    pub fn title(self) -> Text {
        use AlarmKind::*;
        if let Other(word) = self {
            let word = word.as_str();
            return Text { zh: format!("未知类型（{word}）"), en: format!("Unknown kind ({word})") };
        }
        let (zh, en) = match self {
            Smoke => ("烟雾报警", "Smoke alarm"),
            Sos => ("紧急求助", "SOS button"),
            DoorLeftOpen => ("门未关", "Door left open"),
            Tamper => ("设备被拆动", "Device tampered with"),
            SensorLost => ("传感器失联", "Sensor not heard"),
            LowBattery => ("电池电量低", "Battery low"),
            DeviceFault => ("设备故障", "Device fault"),
            EventsLost => ("传感器事件丢失", "Sensor events lost"),
            CameraFault => ("监控设施异常", "Camera fault"),
            IllegalParking => ("机动车乱停放", "Illegal parking"),
            FireLaneBlocked => ("占用消防通道", "Fire lane blocked"),
            CycleParking => ("非机动车乱停放", "Illegally parked bicycle"),
            Litter => ("暴露垃圾", "Exposed litter"),
            AccumulatedWaste => ("积存垃圾渣土", "Accumulated rubbish"),
            BinOverflow => ("垃圾箱满溢", "Overflowing bin"),
            NotOpened => ("长时间未开门", "Door not opened"),
            NightExit => ("夜间开门后未再开门", "Door opened at night and not again"),
            NightFrequency => ("夜间开门次数异常", "Door opened unusually often at night"),
            EndOfLife => ("设备到期", "Device at the end of its life"),
            Contaminated => ("烟感积灰", "Smoke alarm contaminated"),
            BusDown => ("总线故障", "Bus down"),
            ClockTrouble => ("时钟异常", "Clock not trusted"),
            TxOverdue => ("报警未获中心回执", "Alarm not confirmed by the centre"),
            NeverTriggered => ("传感器从未触发", "Sensor never triggered"),
            DrillFailed => ("例行测试失败", "Scheduled test failed"),
            CertificateExpiring => ("网关证书即将到期", "Gateway certificate expiring"),
            Other(_) => ("未知类型", "Unknown kind"),
        };
        Text { zh: zh.into(), en: en.into() }
    }
}

/// A sentence for people in both of the project's languages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Text {
    /// Chinese.
    pub zh: String,
    /// English.
    pub en: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_on_the_wire_are_what_as_str_says() {
        for kind in AlarmKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        for lane in Lane::ALL {
            assert_eq!(serde_json::to_value(lane).unwrap(), lane.as_str());
        }
        for condition in Condition::ALL {
            assert_eq!(serde_json::to_value(condition).unwrap(), condition.as_str());
        }
    }

    #[test]
    fn a_kind_of_a_later_version_is_kept_and_written_out_again() {
        let gas: AlarmKind = serde_json::from_str("\"gas\"").unwrap();
        assert!(!gas.is_known() && gas.lane().is_life_safety() && gas.title().en.contains("gas"));
        assert_eq!(serde_json::to_string(&gas).unwrap(), "\"gas\"");
        let long = format!("\"{}\"", "x".repeat(Unknown::MAX_BYTES + 1));
        for bad in ["\"\"", long.as_str(), "1"] {
            assert!(serde_json::from_str::<AlarmKind>(bad).is_err(), "{bad}");
        }
        assert_eq!((AlarmKind::known("gas"), AlarmKind::known("smoke")), (None, Some(AlarmKind::Smoke)));
    }

    #[test]
    fn a_level_of_care_is_worse_in_every_word_than_the_one_before() {
        // Both lists of CAP words are declared worst first.
        let words: Vec<_> = CareLevel::ALL.iter().map(|level| level.cap()).collect();
        assert!(words.windows(2).all(|w| w[0].0 > w[1].0 && w[0].1 > w[1].1), "{words:?}");
        let fresh = AlarmKind::NotOpened.cap();
        assert_eq!((fresh.urgency, fresh.severity), CareLevel::Yellow.cap());
    }

    #[test]
    fn life_safety_goes_before_everything_else() {
        assert!(Lane::ALL.windows(2).all(|w| w[0] < w[1]));
        assert!(AlarmKind::ALL.iter().filter(|k| k.lane().is_life_safety()).all(|k| k.latches()));
    }
}
