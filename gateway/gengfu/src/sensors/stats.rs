//! What a technician sees of a line or a broker.
//!
//! Owns the problems in words with their remedies, the state and the counters. Everything that was received and went no further is counted
//! here by its reason. Refuses history: these are totals since the gateway's start.

use std::collections::BTreeMap;

use gengfu_contract::slug::Slug;
use gengfu_contract::words::Text;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::link::stats::Warning;

/// Why something does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// There is no such port.
    NoPort,
    /// The port may not be opened.
    Permission,
    /// Another program has the port.
    Busy,
    /// The port was there and hung up.
    HungUp,
    /// The port cannot be used.
    Port(String),
    /// No connection to the Modbus TCP device or gateway.
    Unreachable(String),
    /// A unit does not answer.
    Silent,
    /// None of several units answers.
    AllSilent,
    /// A unit answers with an exception.
    Exception(u8),
    /// What a unit answers is broken.
    Garbled(String),
    /// The broker is away, or refuses.
    Broker {
        /// What happened.
        reason: String,
        /// What to do.
        remedy: String,
    },
}

impl Problem {
    /// What is wrong.
    #[must_use]
    pub fn text(&self) -> Text {
        let (zh, en): (String, String) = match self {
            Problem::NoPort => ("串口不存在".into(), "the port does not exist".into()),
            Problem::Permission => ("没有打开串口的权限".into(), "no permission to open the port".into()),
            Problem::Busy => ("串口被其他程序占用".into(), "another program has the port".into()),
            Problem::HungUp => ("串口或连接已断开".into(), "the port or the connection hung up".into()),
            Problem::Port(why) => (format!("串口无法使用：{why}"), format!("the port cannot be used: {why}")),
            Problem::Unreachable(why) => {
                (format!("无法连接 Modbus TCP 设备：{why}"), format!("no connection to the Modbus TCP device: {why}"))
            }
            Problem::Silent => ("设备不应答".into(), "the unit does not answer".into()),
            Problem::AllSilent => ("线路上所有设备都不应答".into(), "no unit on the line answers".into()),
            Problem::Exception(code) => {
                let (zh, en) = exception(*code);
                (format!("设备以异常码 {code} 拒绝：{zh}"), format!("the unit refuses with exception {code}: {en}"))
            }
            Problem::Garbled(why) => (format!("设备应答有误：{why}"), format!("the unit's answer is broken: {why}")),
            Problem::Broker { reason, .. } => (format!("与设备消息服务器的连接：{reason}"), reason.clone()),
        };
        Text { zh, en }
    }

    /// What to do.
    #[must_use]
    pub fn remedy(&self) -> Text {
        let (zh, en) = match self {
            Problem::NoPort => (
                "检查转换器是否插好，以及配置中的端口（ls -l /dev/serial/by-path）",
                "plug in the adapter, or correct the port in the configuration (ls -l /dev/serial/by-path)",
            ),
            Problem::Permission => (
                "把网关的用户加入 dialout 组后重新启动",
                "add the gateway's user to the group dialout and start it again",
            ),
            Problem::Busy => {
                ("结束占用串口的程序（fuser 端口）", "end the program that has it (fuser PORT shows which)")
            }
            Problem::HungUp => {
                ("检查接线和转换器；网关会自动重连", "check cable and adapter; the gateway opens it again by itself")
            }
            Problem::Port(_) => ("检查它是否是串口，以及波特率", "check that it is a serial port and knows this speed"),
            Problem::Unreachable(_) => {
                ("检查地址、端口、网线和供电", "check address and port in the configuration, network cable and power")
            }
            Problem::Silent => (
                "检查供电、A/B 线、地址、波特率和校验位",
                "check its power, lines A and B, its address, and speed and parity of the line",
            ),
            Problem::AllSilent => (
                "检查转换器、A/B 线是否接反或断开、总线供电和波特率",
                "check the adapter, lines A and B (swapped, broken), the bus's power, and the line's speed",
            ),
            Problem::Exception(1..=3) => (
                "设备型号与配置文件不符：换用对应的 profile，或按设备手册修改",
                "the profile does not fit this device: choose another one, or correct it by the device's manual",
            ),
            Problem::Exception(10 | 11) => (
                "网关设备到达不了该单元：检查单元地址、供电和接线",
                "the Modbus gateway does not reach the unit: check unit address, its power and wiring",
            ),
            Problem::Exception(_) => {
                ("重启设备；仍然如此则更换", "restart the device; replace it if that does not help")
            }
            Problem::Garbled(_) => (
                "检查屏蔽、终端电阻和波特率；确认没有两个设备用同一地址",
                "check shielding, termination and speed, and that no two units have one address",
            ),
            Problem::Broker { remedy, .. } => {
                return Text { zh: "检查本地消息服务器、用户名和密码".into(), en: remedy.clone() };
            }
        };
        Text { zh: zh.into(), en: en.into() }
    }

    /// What and what to do, in both languages, as a `Link::Down` carries it.
    #[must_use]
    pub fn told(&self, whose: &str) -> String {
        let (text, remedy) = (self.text(), self.remedy());
        format!("{whose}：{}；{} / {whose}: {}; {}", text.zh, remedy.zh, text.en, remedy.en)
    }
}

/// Modbus application protocol V1.1b3, 7.
fn exception(code: u8) -> (&'static str, &'static str) {
    match code {
        1 => ("不支持该功能码", "it does not know this function"),
        2 => ("没有该地址", "it has no such address"),
        3 => ("请求的数量不合法", "it does not give so many values"),
        4 => ("设备内部故障", "it failed while answering"),
        5 | 6 => ("设备忙", "it is busy"),
        8 => ("存储校验错误", "its memory has an error"),
        10 => ("网关路径不可用", "the gateway has no path to it"),
        11 => ("网关收不到该单元的应答", "the gateway gets no answer from it"),
        _ => ("未知异常", "an exception of its own"),
    }
}

/// What is known of one unit or device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceStats {
    /// Its name.
    pub name: Slug,
    /// Whether it works; `None` before anything is known.
    pub up: Option<bool>,
    /// In words.
    pub state: String,
    /// The same in Chinese.
    pub state_zh: String,
    /// What to do; empty when nothing is.
    pub remedy: String,
    /// When it last said something, live.
    pub last_heard_at: Option<Timestamp>,
    /// As the device's network counts it.
    pub link_quality: Option<i64>,
}

impl DeviceStats {
    /// Before anything is known.
    #[must_use]
    pub fn starting(name: Slug) -> Self {
        let (state, state_zh) = ("not heard yet".into(), "尚未收到".into());
        let remedy = String::new();
        Self { name, up: None, state, state_zh, remedy, last_heard_at: None, link_quality: None }
    }

    pub(super) fn show(&mut self, problem: Option<&Problem>) {
        let (text, remedy) = match problem {
            None => (Text { zh: "正常".into(), en: "up".into() }, String::new()),
            Some(problem) => (problem.text(), problem.remedy().en),
        };
        (self.up, self.state, self.state_zh, self.remedy) = (Some(problem.is_none()), text.en, text.zh, remedy);
    }
}

/// What is known of a line or a broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SensorStats {
    /// Its device name.
    pub name: Slug,
    /// Where it is: a port, or host and port.
    pub place: String,
    /// Whether it works.
    pub up: bool,
    /// In words.
    pub state: String,
    /// The same in Chinese.
    pub state_zh: String,
    /// What to do; empty when nothing is.
    pub remedy: String,
    /// Since when.
    pub since: Timestamp,
    /// What works and still needs a hand.
    pub warnings: Vec<Warning>,
    /// Its units or devices.
    pub devices: Vec<DeviceStats>,
    /// Answers or messages understood.
    pub understood: u64,
    /// What went no further, by "device: reason".
    pub discards: BTreeMap<String, u64>,
    /// Observations handed over and durable.
    pub observed: u64,
    /// Older levels merged into newer ones while the disk refused.
    pub merged: u64,
    /// Batches that the disk refused.
    pub refused: u64,
    /// Times that it was opened or connected.
    pub opened: u64,
}

impl SensorStats {
    /// Before anything is known.
    #[must_use]
    pub fn starting(name: Slug, place: String, devices: impl IntoIterator<Item = Slug>, now: Timestamp) -> Self {
        Self {
            name,
            place,
            up: false,
            state: "starting".into(),
            state_zh: "正在启动".into(),
            remedy: "wait a few seconds".into(),
            since: now,
            warnings: Vec::new(),
            devices: devices.into_iter().map(DeviceStats::starting).collect(),
            understood: 0,
            discards: BTreeMap::new(),
            observed: 0,
            merged: 0,
            refused: 0,
            opened: 0,
        }
    }

    pub(super) fn show(&mut self, now: Timestamp, problem: Option<&Problem>) {
        let (text, remedy) = match problem {
            None => (Text { zh: "正常".into(), en: "up".into() }, String::new()),
            Some(problem) => (problem.text(), problem.remedy().en),
        };
        if self.up != problem.is_none() || self.state != text.en {
            self.since = now;
        }
        (self.up, self.state, self.state_zh, self.remedy) = (problem.is_none(), text.en, text.zh, remedy);
    }

    /// Counts what went no further; true for the 1st, 2nd, 4th, 8th ..., which are worth a line in the log.
    pub(super) fn discard(&mut self, device: &Slug, reason: &str) -> bool {
        let count = self.discards.entry(format!("{device}: {reason}")).or_default();
        *count += 1;
        count.is_power_of_two()
    }

    /// A value that a profile does not name: the device is faulty until it does, or says something else.
    pub(super) fn warn_unknown(&mut self, device: &Slug, profile: &str, unknown: &str) {
        let text = Text {
            zh: format!("{device}：profile {profile} 不认识该值（{unknown}）"),
            en: format!("{device}: profile {profile} does not know this value ({unknown})"),
        };
        let remedy = Text {
            zh: "按设备文档把该值加入 profile 的 states".into(),
            en: "add the value to the profile's states, by the device's documentation".into(),
        };
        self.warn(text, remedy);
    }

    pub(super) fn warn(&mut self, text: Text, remedy: Text) {
        /// More would only hide the first.
        const WARNINGS_MAX: usize = 32;
        let warning = Warning { text: text.en, text_zh: text.zh, remedy: remedy.en, remedy_zh: remedy.zh };
        if self.warnings.len() < WARNINGS_MAX && !self.warnings.contains(&warning) {
            tracing::warn!(name = %self.name, remedy = warning.remedy, "{}", warning.text);
            self.warnings.push(warning);
        }
    }
}
