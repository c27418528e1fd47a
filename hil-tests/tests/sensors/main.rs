//! Other makers' sensors: Modbus units, devices behind a broker, and every shipped profile. What a file is about stands at its head; here is what each
//! needs, so that a missing part is a counted skip.

mod modbus;
mod mqtt;
mod profiles;
mod rig;

use std::future::Future;
use std::process::ExitCode;

use hil_tests::skip::{self, Need, need};
use libtest_mimic::Trial;

fn main() -> ExitCode {
    let units: Need = rig::pymodbus().map(|_| ());
    let broker = need::all([need::tool("mosquitto"), need::tool("mosquitto_passwd")]);
    let tests = [modbus::tests(&units), mqtt::tests(&broker), profiles::tests()];
    skip::main(tests.into_iter().flatten().collect())
}

/// A test whose body waits for tasks at work.
fn at_work<F: Future<Output = ()> + Send + 'static>(name: &str, need: Need, body: fn() -> F) -> Trial {
    skip::test(name, need, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.map(|runtime| runtime.block_on(body()))
    })
}
