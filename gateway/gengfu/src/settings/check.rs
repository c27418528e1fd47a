//! Whether a configuration that came may be tried at all.
//!
//! Owns everything that can be known before it runs: whose it is, that it is not older than what was there, that it is free of faults, that it stays on this
//! gateway's name and data, and that it names nothing more that this machine lacks. Refuses to try it.

use gengfu_contract::words::Text;
use serde::{Deserialize, Serialize};

use super::begin::BoxFile;
use super::bundle::{Bundle, Verified};
use super::slots::State;
use crate::config::{Config, Fault, Lack, Trusted};
use crate::signed::PublicKey;

/// Faults that a refusal names; of more it tells the number.
const FAULTS_NAMED: usize = 3;

/// What somebody at the box may say beside the bundle. The centre may not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waivers {
    /// A bundle with a lower number, or one that was had, may be tried.
    pub older: bool,
    /// It may name things that this machine lacks.
    pub lacking: bool,
    /// It is kept when the gateway runs with it for the time of the trial, whatever the uplink does.
    pub without_uplink: bool,
}

/// Judges a bundle. `Err` is the refusal: what is wrong and what to do.
pub(super) fn judge(
    bytes: &[u8],
    running: &Config,
    file: &BoxFile,
    state: &State,
    waivers: Waivers,
) -> Result<Verified, Text> {
    let keys = trusted(running)?;
    let verified = Bundle::from_bytes(bytes).and_then(|bundle| bundle.verify(&keys)).map_err(|error| error.text())?;
    let (manifest, own) = (&verified.manifest, &running.gateway);
    if (&manifest.site, &manifest.gateway) != (&own.site, &own.name) {
        return Err(text(
            format!("此配置包属于 {}/{}，本网关是 {}/{}", manifest.site, manifest.gateway, own.site, own.name),
            format!(
                "the bundle is for {}/{}, this is {}/{}: send it there",
                manifest.site, manifest.gateway, own.site, own.name
            ),
        ));
    }
    if manifest.counter <= state.highest && !waivers.older {
        return Err(text(
            format!("配置包编号 {} 不高于已用过的 {}；请用更高编号重新打包", manifest.counter, state.highest),
            format!(
                "the bundle's number {} is not higher than {}, which was had: pack it with a higher one (at the box: `gengfu config try --older`)",
                manifest.counter, state.highest
            ),
        ));
    }
    if file.is_changed() {
        let path = file.path.display();
        return Err(text(
            format!("{path} 已被现场修改但尚未启用；请先重启网关"),
            format!("{path} was changed at the box and is not in use yet: restart the gateway first"),
        ));
    }
    let config = Config::parse(&verified.text, &file.base)
        .map_err(|faults| text(format!("配置有 {} 处错误：{}", faults.len(), summary(&faults)), summary(&faults)))?;
    same_gateway(running, &config)?;
    let lacks = new_lacks(running, &config);
    if let Some(first) = lacks.first().filter(|_| !waivers.lacking) {
        let named = format!("{}: {}; {}", first.key, first.problem, first.remedy);
        return Err(text(
            format!("本机缺少该配置所需的 {} 项：{named}", lacks.len()),
            format!(
                "this machine lacks {} thing(s) it names: {named} (at the box: `gengfu config try --lacking`)",
                lacks.len()
            ),
        ));
    }
    Ok(verified)
}

/// The keys the running configuration trusts.
fn trusted(running: &Config) -> Result<Vec<PublicKey>, Text> {
    if running.changes.trusted.is_empty() {
        return Err(text(
            "未设置受信任的配置签名密钥".into(),
            "no key is trusted to sign a configuration: set [config] trusted".into(),
        ));
    }
    let read = |trusted: &Trusted| match trusted {
        Trusted::Key(key) => Ok(*key),
        Trusted::File(path) => PublicKey::read(path)
            .map_err(|error| text(format!("受信任的公钥无法读取：{error}"), format!("[config] trusted: {error}"))),
    };
    running.changes.trusted.iter().map(read).collect()
}

/// Name and data stay: another name is another gateway at the broker, another folder is another journal.
pub(super) fn same_gateway(running: &Config, new: &Config) -> Result<(), Text> {
    let (own, other) = (&running.gateway, &new.gateway);
    let pairs = [
        ("gateway.site", own.site.to_string(), other.site.to_string()),
        ("gateway.name", own.name.to_string(), other.name.to_string()),
        ("gateway.data_dir", own.data_dir.display().to_string(), other.data_dir.display().to_string()),
    ];
    match pairs.into_iter().find(|(_, own, other)| own != other) {
        None => Ok(()),
        Some((key, own, other)) => Err(text(
            format!("{key} 不能由配置包更改（{own} → {other}）；请在现场修改配置文件"),
            format!("{key} cannot be changed by a bundle ({own} to {other}): change the file at the box"),
        )),
    }
}

/// What the new configuration names and this machine has not, beyond what it lacks already.
fn new_lacks(running: &Config, new: &Config) -> Vec<Lack> {
    let known: Vec<String> = lacks(running).into_iter().map(|lack| lack.problem).collect();
    lacks(new).into_iter().filter(|lack| !known.contains(&lack.problem)).collect()
}

/// What `gengfu check` finds lacking.
fn lacks(config: &Config) -> Vec<Lack> {
    let mut lacks = config.environment();
    lacks.extend(crate::setup::codes(config).err());
    lacks
}

/// Faults in one line.
pub(super) fn summary(faults: &[Fault]) -> String {
    let named: Vec<String> = faults.iter().take(FAULTS_NAMED).map(ToString::to_string).collect();
    let more = match faults.len().saturating_sub(FAULTS_NAMED) {
        0 => String::new(),
        more => format!("; and {more} more, `gengfu check` names them"),
    };
    format!("{}{more}", named.join("; "))
}

fn text(zh: String, en: String) -> Text {
    Text { zh, en }
}
