//! Why a link does not work.
//!
//! Owns the closed list of causes, each with its words and what to do, in Chinese and English. Refuses to find out; the port, the session and the
//! bus do that.

use gengfu_contract::words::Text;

/// Why a link does not work, as far as is known. The first that applies is shown.
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
    /// The node speaks another protocol version.
    Version {
        /// The node's.
        node: u8,
    },
    /// Another node answers than the configured one.
    WrongUid {
        /// Expected, hex.
        expected: String,
        /// Heard, hex.
        heard: String,
    },
    /// Several nodes answer at one address of a bus.
    AddressClash {
        /// The address.
        address: u8,
    },
    /// Bytes arrive, and none of them makes a frame.
    Baud {
        /// The gateway's speed, bits per second.
        baud: u32,
    },
    /// Nothing is heard of the only node of the line.
    Silent,
    /// On a bus where others answer this node does not.
    NoAnswer {
        /// The address it was asked at.
        address: u8,
    },
    /// Nobody answers on the whole bus.
    BusSilent,
}

impl Problem {
    /// What is wrong.
    #[must_use]
    pub fn text(&self) -> Text {
        let (zh, en) = match self {
            Problem::NoPort => ("串口不存在".into(), "the port does not exist".into()),
            Problem::Permission => ("没有打开串口的权限".into(), "no permission to open the port".into()),
            Problem::Busy => ("串口被其他程序占用".into(), "another program has the port".into()),
            Problem::HungUp => ("串口已断开".into(), "the port hung up".into()),
            Problem::Port(why) => (format!("串口无法使用：{why}"), format!("the port cannot be used: {why}")),
            Problem::Version { node } => (
                format!("节点的协议版本是 {node}，网关是 {}", gengfu_wire::PROTOCOL_VERSION),
                format!("the node speaks protocol version {node}, the gateway {}", gengfu_wire::PROTOCOL_VERSION),
            ),
            Problem::WrongUid { expected, heard } => (
                format!("应答的是节点 {heard}，配置的是 {expected}"),
                format!("node {heard} answers, node {expected} is configured"),
            ),
            Problem::AddressClash { address } => (
                format!("总线地址 {address} 上有多个节点应答"),
                format!("several nodes answer at address {address} of the bus"),
            ),
            Problem::Baud { baud } => (
                format!("收到的字节在 {baud} 波特下都不成帧"),
                format!("bytes arrive, but none make a frame at {baud} bit/s"),
            ),
            Problem::Silent => ("收不到节点的信号".into(), "nothing is heard from the node".into()),
            Problem::NoAnswer { address } => (
                format!("总线地址 {address} 无应答，其他节点正常"),
                format!("nobody answers at address {address} of the bus; others do"),
            ),
            Problem::BusSilent => ("整条总线无应答".into(), "nobody answers on the whole bus".into()),
        };
        Text { zh, en }
    }

    /// What to do.
    #[must_use]
    pub fn remedy(&self) -> Text {
        let (zh, en) = match self {
            Problem::NoPort => (
                "检查节点或转换器是否插好，以及配置中的端口（ls -l /dev/serial/by-path）",
                "plug in the node or its adapter, or correct the port in the configuration (ls -l /dev/serial/by-path)",
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
            Problem::Version { .. } => ("升级较旧的一方", "update the older of the two"),
            Problem::WrongUid { .. } => {
                ("换回原来的节点，或修改配置中的 uid", "put the right node back, or change uid in the configuration")
            }
            Problem::AddressClash { .. } => (
                "逐个断开该地址的节点，给每个节点不同的地址（配置 uid 后网关会自动分配）",
                "disconnect these nodes one by one and give each its own address (with uid configured the gateway assigns it)",
            ),
            Problem::Baud { .. } => (
                "核对网关与节点的波特率；再检查 A/B 线、终端电阻和偏置",
                "set the same speed at gateway and node; then check the wires A and B, termination and bias",
            ),
            Problem::Silent => {
                ("检查节点的电源、接线和波特率", "check the node's power, the cable (RX to TX) and the speed")
            }
            Problem::NoAnswer { .. } => (
                "检查该节点的电源、分支接线和地址；配置其 uid 可由网关分配地址",
                "check this node's power, its stub and its address; with its uid configured the gateway assigns the address",
            ),
            Problem::BusSilent => (
                "检查总线供电、A/B 线是否接反、终端电阻、转换器和波特率",
                "check the bus's power, whether A and B are swapped, termination, adapter and speed",
            ),
        };
        Text { zh: zh.into(), en: en.into() }
    }
}
