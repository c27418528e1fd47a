//! Writes the contract's documents into the repository, or access rules for gateways of your own to standard output.
//!
//! ```text
//! cargo run -p gengfu-contract --example generate                       # docs/contract, config/broker
//! cargo run -p gengfu-contract --example generate -- acl mosquitto spring-street gw-01 gw-02
//! cargo run -p gengfu-contract --example generate -- acl nats|rabbitmq SITE GATEWAY...
//! ```

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use gengfu_contract::publish::{Party, documents, mosquitto, nats, rabbitmq};
use gengfu_contract::slug::Slug;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [] => write_documents(),
        ["acl", broker, site, gateways @ ..] if !gateways.is_empty() => rules(broker, site, gateways),
        _ => Err("usage: generate [acl mosquitto|nats|rabbitmq SITE GATEWAY...]".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("generate: {why}");
            ExitCode::from(2)
        }
    }
}

fn write_documents() -> Result<(), String> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for document in documents() {
        let path = repository.join(&document.path);
        let written =
            path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, &document.text));
        written.map_err(|error| format!("{}: {error}", document.path))?;
        println!("{}", document.path);
    }
    Ok(())
}

fn rules(broker: &str, site: &str, gateways: &[&str]) -> Result<(), String> {
    let name = |name: &str| Slug::new(name).map_err(|error| error.to_string());
    let site = name(site)?;
    let parties = gateways.iter().map(|gateway| Ok(Party::new(site.as_str(), name(gateway)?.as_str())));
    let parties = parties.collect::<Result<Vec<_>, String>>()?;
    let text = match broker {
        "mosquitto" => mosquitto(&parties),
        "nats" => nats(&parties),
        "rabbitmq" => format!("{:#}\n", rabbitmq(&parties)),
        other => return Err(format!("no broker \"{other}\" is known: mosquitto, nats or rabbitmq")),
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
}
