//! A dispatch centre in a hundred lines: takes events, stores them, says that it has them, acknowledges nothing, proves that none is missing.
//!
//!     cargo run -p gengfu-contract --example centre -- spring-street 127.0.0.1:1883
//!
//! Events and pictures are stored in `./centre/`, one file each, synced before their receipt goes out. MQTT 5, without TLS: a real centre gives
//! rumqttc a certificate of its own. The rules: docs/contract.md; the crate's part of the work: `gengfu_contract::centre`.
#![allow(clippy::disallowed_methods)] // a program of its own: this is where its clock is read

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use gengfu_contract::centre::sequence::Arrival;
use gengfu_contract::centre::{Centre, Incoming, Outgoing};
use gengfu_contract::slug::Slug;
use gengfu_contract::state::Presence;
use jiff::Timestamp;
use rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};

/// Two weeks, as the gateways keep theirs.
const SESSION_EXPIRY_S: u32 = 14 * 24 * 3600;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(site), Some(broker)) = (words.next(), words.next()) else {
        return Err("usage: centre SITE HOST:PORT".into());
    };
    let (host, port) = broker.rsplit_once(':').ok_or("the broker is HOST:PORT")?;
    let mut centre = Centre::new(Slug::new(&site)?);
    let mut options = MqttOptions::new(format!("centre-{site}"), host, port.parse()?);
    // What is sent while this program is away waits at the broker; and a message is acknowledged when it is stored, not before.
    options.set_clean_start(false).set_session_expiry_interval(Some(SESSION_EXPIRY_S)).set_manual_acks(true);
    options.set_keep_alive(Duration::from_secs(30)).set_max_packet_size(Some(16 << 20));
    let gone = centre.presence(Presence::Offline, Timestamp::now());
    options.set_last_will(LastWill::new(gone.topic, gone.payload, AtLeastOnce, true, None));
    let (client, mut events) = AsyncClient::new(options, 1024);
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                client.try_subscribe(centre.filter(), AtLeastOnce)?;
                send(&client, centre.presence(Presence::Online, Timestamp::now()))?;
            }
            Ok(Event::Incoming(Packet::Publish(message))) => {
                if let Some(said) = answer(&mut centre, &message)? {
                    send(&client, said)?;
                }
                client.try_ack(&message)?;
            }
            Ok(_) => {}
            Err(fault) => {
                eprintln!("{fault}; trying again");
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    }
}

fn send(client: &AsyncClient, said: Outgoing) -> Result<(), Box<dyn Error>> {
    Ok(client.try_publish(said.topic, AtLeastOnce, said.retain, said.payload)?)
}

/// Stores what came; the receipts for it.
fn answer(centre: &mut Centre, message: &Publish) -> Result<Option<Outgoing>, Box<dyn Error>> {
    let (topic, now) = (std::str::from_utf8(&message.topic)?, Timestamp::now());
    let (gateway, incoming) = match centre.take(topic, &message.payload, now) {
        Ok(Some(taken)) => taken,
        Ok(None) => return Ok(None),
        // Not received for: the gateway keeps it, and a person reads this.
        Err(fault) => {
            eprintln!("{fault}");
            return Ok(None);
        }
    };
    let id = match incoming {
        Incoming::Event { event, alarm, arrival } => {
            if let Some(alarm) = &alarm {
                let (title, why) = (&alarm.title, &alarm.explanation.text);
                println!(
                    "{} {gateway}/{} {} / {}: {:?}",
                    event.time, alarm.device, title.zh, title.en, alarm.condition
                );
                println!("    {} / {}", why.zh, why.en);
            }
            match arrival {
                Arrival::Conflict => return Ok(None),
                Arrival::Duplicate => {}
                Arrival::New | Arrival::Again => {
                    store(&format!("{gateway}-{:010}.json", event.sequence), &message.payload)?;
                }
            }
            event.id
        }
        Incoming::Picture { id, owner, n, bytes } => {
            store(&format!("{gateway}-{owner}-{n}.jpg"), &bytes)?;
            id
        }
        Incoming::Statement(_, proof) => {
            println!("{gateway}: {proof}");
            return Ok(None);
        }
        _ => return Ok(None),
    };
    let cmd_id = format!("r-{}", now.as_nanosecond());
    Ok(Some(centre.receipt(&gateway, &cmd_id, &[id], now)))
}

/// Durable when it returns.
fn store(name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new("centre");
    std::fs::create_dir_all(folder)?;
    let mut file = File::create(folder.join(name))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    File::open(folder)?.sync_all()
}
