//! A node's firmware is updated while it watches: keys, bundle and order by the command line that a technician uses. Goal: the node runs the new version and
//! no event is lost; what nobody trusted has signed never leaves the gateway. Method: a real node process with slots in a file, the real gateway and desk.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use hil_tests::node::{Traffic, seed};
use hil_tests::site::{Plan, Site};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError, gateway};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

/// Some hundred blocks, each of which waits for its answer.
const UPDATED_WITHIN: Duration = Duration::from_secs(90);
const IMAGE_BYTES: usize = 40 << 10;
/// The new version's life after its confirmation.
const AFTERWARDS: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let mqtt = need::tool("mosquitto");
    skip::main(vec![skip::test("node_is_updated_by_the_running_gateway_and_loses_no_event", mqtt, updated)])
}

fn gengfu(words: &[&str]) -> Result<(bool, String)> {
    let doing = format!("run gengfu {}", words.join(" "));
    let output = std::process::Command::new(gateway::binary()?).args(words).output();
    let output = output.map_err(|e| RigError::failed(&doing, e))?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn must(words: &[&str]) -> Result<()> {
    let (well, said) = gengfu(words)?;
    if well { Ok(()) } else { Err(RigError::failed(format!("run gengfu {}", words.join(" ")), said)) }
}

/// A release of the process's board, signed with `key`.
fn release(dir: &Path, name: &str, key: &str, seed: u64) -> Result<String> {
    let path = |file: &str| dir.join(format!("{name}-{file}")).display().to_string();
    let mut random = StdRng::seed_from_u64(seed);
    for file in ["a", "b"] {
        let mut image = vec![0; IMAGE_BYTES];
        random.fill_bytes(&mut image);
        fs::write(path(file), image).map_err(|e| RigError::failed("write an image", e))?;
    }
    let (a, b, bundle) = (path("a"), path("b"), path("bundle"));
    must(&["firmware", "pack", "--a", &a, "--b", &b, "--board", "2", "--version", "7.1.0", "--out", &bundle])?;
    must(&["firmware", "sign", &bundle, "--key", key])?;
    Ok(bundle)
}

fn updated() -> Result<()> {
    let seed = seed();
    let dir = tempfile::tempdir().map_err(|e| RigError::failed("make a folder", e))?;
    let path = |file: &str| dir.path().join(file).display().to_string();
    let (key, public, stranger) = (path("release.key"), path("release.pub"), path("stranger.key"));
    must(&["firmware", "keygen", "--key", &key, "--public", &public])?;
    must(&["firmware", "keygen", "--key", &stranger, "--public", &path("stranger.pub")])?;
    let trusted = fs::read_to_string(&public).map_err(|e| RigError::failed("read the public key", e))?;
    let plan = Plan { nodes: 1, firmware_key: Some(trusted.trim().to_owned()), silence: "20s", ..Plan::default() };
    let mut site = Site::start(&plan)?;

    let foreign = release(dir.path(), "foreign", &stranger, seed)?;
    let (code, _, said) = site.gateway.command_output(&["firmware", "send", "node-1", &foreign])?;
    assert!(
        code == Some(2) && said.contains("sign"),
        "a stranger's firmware is refused with the reason: {code:?} {said}"
    );

    let bundle = release(dir.path(), "release", &key, seed)?;
    let (code, _, said) = site.gateway.command_output(&["firmware", "send", "node-1", &bundle])?;
    assert_eq!(code, Some(0), "{said}");
    // Doors only: while somebody calls for help an update waits. Slower than a contact is debounced.
    let traffic = Traffic::of_doors(site.nodes.clone(), seed, 120..250)?;
    site.gateway.wait_until("the node runs the new version", UPDATED_WITHIN, |status| {
        let link = &status["links"][0];
        link["firmware"] == "7.1.0" && link["update"]["stage"] == "done"
    })?;
    site.gateway.process()?.outlives(AFTERWARDS)?;
    traffic.stop()?;
    site.settle()?;
    let account = site.account()?;
    println!("{account:?}");
    assert!(account.acknowledged > 10, "too little happened to prove anything: {account:?}");
    Ok(())
}
