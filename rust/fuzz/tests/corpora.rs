//! Replays what fuzzing has found worth keeping.

use std::fs;
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let inputs: Vec<_> = fs::read_dir(&folder).expect("the corpus is there").collect();
    assert!(!inputs.is_empty());
    for input in inputs {
        run(&fs::read(input.expect("it can be listed").path()).expect("it can be read"));
    }
}

#[test]
fn datagrams() {
    replay("datagrams", audiomixer_fuzz::datagrams::run);
}

#[test]
fn hub() {
    replay("hub", audiomixer_fuzz::hub::run);
}

#[test]
fn packets() {
    replay("packets", audiomixer_fuzz::packets::run);
}

#[test]
fn operations() {
    replay("operations", audiomixer_fuzz::operations::run);
}

#[test]
fn payloads() {
    replay("payloads", audiomixer_fuzz::payloads::run);
}
