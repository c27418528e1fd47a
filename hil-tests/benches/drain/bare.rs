//! rumqttc alone: as its documentation shows, one task publishes, one polls.

use std::time::{Duration, Instant};

use hil_tests::Result;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event};

use crate::centre::{Centre, EVENTS, options};
use crate::{WINDOW, fail};

/// Publishes all, and gives the time from the start until the centre has the last.
pub fn publish(port: u16, bodies: &[Vec<u8>]) -> Result<Duration> {
    let centre = Centre::start(port, bodies.len(), false)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| fail("start rumqttc's runtime")(&e))?;
    let began = Instant::now();
    runtime.block_on(async {
        let (client, mut wire) = AsyncClient::new(options("bare", port), usize::from(WINDOW));
        let (bodies, count) = (bodies.to_vec(), bodies.len());
        let publisher = tokio::spawn(async move {
            for body in bodies {
                client.publish(EVENTS, QoS::AtLeastOnce, false, body).await?;
            }
            // The client ends with its last handle.
            Ok::<_, rumqttc::v5::ClientError>(client)
        });
        let mut acked = 0;
        while acked < count {
            let event = wire.poll().await.map_err(|e| fail("publish with rumqttc alone")(&e))?;
            acked += usize::from(matches!(event, Event::Incoming(Packet::PubAck(_))));
        }
        publisher.await.map_err(|e| fail("end the publisher")(&e))?.map_err(|e| fail("publish")(&e))?;
        Ok::<(), hil_tests::RigError>(())
    })?;
    Ok(centre.done()?.duration_since(began))
}
