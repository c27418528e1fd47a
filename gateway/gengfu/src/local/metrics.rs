//! Prometheus metrics on a local port.
//!
//! Owns the exporter and the texts that explain each metric. Where a figure is counted is up to the part that counts it (`metrics` crate).

use std::net::SocketAddr;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder};

/// Serves `http://<address>/metrics` from now on.
///
/// # Errors
/// When the port is taken, or metrics are served already in this process.
pub fn serve(address: SocketAddr) -> Result<(), BuildError> {
    PrometheusBuilder::new().with_http_listener(address).install()?;
    metrics::describe_counter!("gengfu_alarm_transitions_total", "Alarm transitions journaled, by kind and condition");
    metrics::describe_counter!("gengfu_outbox_dropped_total", "Items dropped undelivered because their lane was full");
    metrics::describe_counter!(
        "gengfu_outbox_commit_failures_total",
        "Batches the disk refused; nothing of them was acknowledged"
    );
    metrics::describe_gauge!("gengfu_outbox_pending", "Items the centre has not received yet, by lane");
    metrics::describe_gauge!("gengfu_decide_batch_inputs", "Inputs judged under one sync, last batch");
    metrics::describe_counter!("gengfu_stills_shed_total", "Pictures not taken because the cameras did not keep up");
    metrics::describe_counter!("gengfu_camera_scenes_total", "Analysed pictures, by camera");
    metrics::describe_counter!("gengfu_camera_looks_total", "Analysed pictures that the detector looked at, by camera");
    metrics::describe_gauge!(
        "gengfu_camera_shedding_level",
        "What cameras give up for want of time: 0 nothing, 4 most"
    );
    metrics::describe_counter!("gengfu_camera_shedding_changes_total", "Steps up and down that ladder");
    metrics::describe_gauge!("gengfu_camera_cpu_share", "Share of the processors that camera workers take, 0 to 1");
    metrics::describe_counter!(
        "gengfu_camera_scenes_shed_total",
        "Analysed pictures not judged because the decider was busy"
    );
    metrics::describe_counter!("gengfu_camera_worker_starts_total", "Starts of camera workers");
    metrics::describe_gauge!("gengfu_link_up", "1 while the node on this link is heard");
    Ok(())
}
