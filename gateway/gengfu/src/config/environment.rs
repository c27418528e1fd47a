//! What a valid configuration names but this machine lacks.
//!
//! Owns the checks that need the machine: files, ports, folders. A lack is no fault of the file: the gateway starts all the same where it can, and
//! shows the lack as a trouble. Reads only.

use std::path::Path;

use serde::Serialize;

use super::{Attachment, Config, Trusted};
use crate::identity::slots::Slots;
use crate::sensors::config::Way;
use crate::sensors::plan::resolve_what_fits;

/// Something the configuration needs and the machine does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lack {
    /// Key path of what names it.
    pub key: String,
    /// What is lacking.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

pub(super) fn lacks(config: &Config) -> Vec<Lack> {
    let mut lacks = Vec::new();
    let mut file = |key: String, path: &Path, remedy: &str| {
        if let Err(error) = std::fs::metadata(path) {
            lacks.push(Lack { key, problem: format!("{}: {error}", path.display()), remedy: remedy.to_owned() });
        }
    };
    for (n, node) in config.nodes.iter().enumerate() {
        if let Attachment::Port(port) = &node.at {
            file(format!("node[{n}].port"), port, "plug the node in, or name its port (ls -l /dev/serial/by-path)");
        }
    }
    for (n, bus) in config.buses.iter().enumerate() {
        file(format!("bus[{n}].port"), &bus.port, "plug the adapter in, or name its port (ls -l /dev/serial/by-path)");
    }
    for (key, line) in [("lamp", &config.annunciation.lamp), ("sounder", &config.annunciation.sounder)] {
        if let Some(line) = line {
            file(format!("annunciation.{key}.chip"), &line.chip, "name the GPIO chip (gpiodetect lists them)");
        }
    }
    for (n, key) in config.firmware_keys.iter().enumerate() {
        file(format!("firmware.trusted[{n}]"), key, "copy the release's public key there");
    }
    for (n, key) in config.changes.trusted.iter().enumerate() {
        if let Trusted::File(key) = key {
            file(format!("config.trusted[{n}]"), key, "copy the public key there, or write its 64 hex digits instead");
        }
    }
    for (n, line) in config.sensors.lines.iter().enumerate() {
        if let Way::Serial { port, .. } = &line.way {
            file(
                format!("modbus[{n}].port"),
                port,
                "plug the adapter in, or name its port (ls -l /dev/serial/by-path)",
            );
        }
    }
    for (n, broker) in config.sensors.brokers.iter().enumerate() {
        if let Some(password) = &broker.password_file {
            let remedy = "write the password into it, readable by the gateway only (chmod 600)";
            file(format!("device_broker[{n}].password_file"), password, remedy);
        }
    }
    for (n, code) in config.gateway.codes.iter().enumerate() {
        file(format!("gateway.codes[{n}]"), code, "copy the code file there, or correct the path");
    }
    if let Some(password) = &config.uplink.password_file {
        file(
            "uplink.password_file".into(),
            password,
            "write the password into it, readable by the gateway only (chmod 600)",
        );
    }
    if let Some(tls) = &config.uplink.tls {
        file("uplink.tls.ca_file".into(), &tls.ca_file, "copy the authority's certificate there");
        for (key, path) in [("cert_file", &tls.cert_file), ("key_file", &tls.key_file)] {
            if let Some(path) = path {
                file(format!("uplink.tls.{key}"), path, "enrol the gateway to obtain it");
            }
        }
        if let Some(crl) = &tls.crl_file {
            file("uplink.tls.crl_file".into(), crl, "copy the authority's revocation list there, or remove the key");
        }
        if let Some(enrol) = &tls.enrol {
            file("uplink.tls.enrol.ca_file".into(), &enrol.ca_file, "copy the enrolment server's CA there");
        }
        let slots = config.gateway.data_dir.join(crate::identity::FOLDER);
        if tls.is_managed && tls.enrol.is_none() && !Slots::next_file(&slots).exists() {
            let remedy = "`gengfu enrol request`, have it signed (scripts/ca.sh sign), `gengfu enrol install`";
            file("uplink.tls.identity".into(), &Slots::current_file(&slots), remedy);
        }
    }
    if !config.cameras.is_empty() {
        file(
            "vision.onnxruntime".into(),
            &config.vision.onnxruntime,
            "run scripts/fetch-models.sh, or name the library",
        );
        file("vision.manifest".into(), &config.vision.manifest, "copy models/manifest.toml there, or correct the path");
        file("vision.models_dir".into(), &config.vision.models_dir, "run scripts/fetch-models.sh, or correct the path");
    }
    for (n, camera) in config.cameras.iter().enumerate() {
        if !camera.url.is_live() {
            file(format!("camera[{n}].url"), Path::new(camera.url.reveal()), "correct the path of the clip");
        }
    }
    lacks.extend(resolve_what_fits(&config.sensors).1);
    lacks
}
