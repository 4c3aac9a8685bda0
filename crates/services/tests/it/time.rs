//! Steps of the wall clock, seen from the services.

use crate::support::{Fixture, Machine, Path};
use firn_services::Cache;
use std::sync::Arc;

const DAY: i64 = 24 * 3600 * 1000;

#[test]
fn d3_no_step_of_the_clock_evicts_what_is_kept_for_some_time() {
    let machine = Machine::new();
    let fixture = Fixture::on(&machine);
    fixture.configure(Some(30 * 86_400), None);
    let paths: Vec<Path> = (0..9)
        .map(|index| Path::new(&format!("path{index}"), 5000, &[]))
        .collect();
    for path in &paths {
        fixture.push(path).unwrap();
    }
    let held = || paths.iter().filter(|path| fixture.has(path)).count();
    for step in [40, -40, 40, 40, -120] {
        machine.step(step * DAY);
        fixture.services.sweep();
        fixture.services.retention.keep().unwrap();
        assert_eq!(held(), paths.len(), "{step} days");
    }
    machine.pass(20 * DAY);
    assert!(fixture.pull(&paths[0]));
    fixture.services.retention.keep().unwrap();
    assert_eq!(held(), paths.len());
    machine.pass(11 * DAY);
    fixture.services.retention.keep().unwrap();
    assert_eq!(held(), 1);
}

#[test]
fn d3_no_step_of_the_clock_retires_a_signing_key() {
    let machine = Machine::new();
    let fixture = Fixture::on(&machine);
    let keys = |cache: Arc<Cache>| cache.public_keys().len();
    let access = &fixture.services.access;
    access.rotate_key(&fixture.cache(), 86_400).unwrap();
    machine.step(40 * DAY);
    fixture.services.sweep();
    assert_eq!(keys(fixture.cache()), 2);
    machine.step(-40 * DAY);
    machine.pass(2 * DAY);
    fixture.services.sweep();
    assert_eq!(keys(fixture.cache()), 1);
}
