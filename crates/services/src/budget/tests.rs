use super::*;

const SOON: Duration = Duration::from_millis(20);

fn budget() -> Budget {
    Budget::new(Shares {
        total: 100,
        strangers: Share { each: 10, all: 30 },
        known: Share { each: 60, all: 90 },
        held: Share { each: 40, all: 50 },
    })
}

fn stranger(last: u8) -> Client {
    Client::Stranger(IpAddr::from([127, 0, 0, last]))
}

#[test]
fn every_client_has_its_share_and_strangers_never_have_all() {
    let budget = budget();
    let (a, b) = (Client::known("a"), Client::known("b"));
    let all_of_a = budget.try_take(&a, 60).unwrap();
    assert!(budget.try_take(&a, 1).is_err());
    let strangers: Vec<_> = (0..9)
        .filter_map(|last| budget.try_take(&stranger(last), 10).ok())
        .collect();
    assert_eq!(strangers.len(), 3);
    let mut rest = budget.try_take(&b, 5).unwrap();
    assert!(rest.grow(6).is_err());
    rest.grow(5).unwrap();
    assert_eq!(budget.held(), 100);
    drop(all_of_a);
    budget.try_take(&b, 50).unwrap();
    drop((strangers, rest));
    assert_eq!(budget.held(), 0);
    assert!(lock(&budget.state).of_client.is_empty());
}

#[test]
fn who_waits_for_its_own_share_holds_up_nobody_and_is_served_when_there_is_room() {
    let budget = budget();
    let (a, b) = (Client::known("a"), Client::known("b"));
    let first = budget.try_take(&a, 60).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| budget.take_within(&a, 50, Duration::from_secs(20)));
        while !budget.wanted_from(&a) {
            std::thread::yield_now();
        }
        assert!(!budget.wanted_from(&b));
        drop(budget.take_within(&b, 30, SOON).unwrap());
        drop(first);
        assert_eq!(waiting.join().unwrap().unwrap().amount(), 50);
    });
    assert_eq!(budget.held(), 0);
}

#[test]
fn a_large_request_is_not_overtaken_for_ever_and_one_that_gives_up_leaves_nothing() {
    let budget = budget();
    let (a, b) = (Client::known("a"), Client::known("b"));
    let (held, first) = (Client::held("a"), budget.try_take(&a, 50).unwrap());
    let kept = budget.try_take(&held, 40).unwrap();
    assert!(budget.take_within(&b, 40, SOON).is_err());
    std::thread::scope(|scope| {
        let large = scope.spawn(|| budget.take_within(&b, 40, Duration::from_secs(20)));
        while !budget.wanted_from(&a) {
            std::thread::yield_now();
        }
        // There would be room for this one, but the other came before.
        assert!(budget.try_take(&a, 5).is_err());
        drop(kept);
        assert_eq!(large.join().unwrap().unwrap().amount(), 40);
    });
    drop(first);
    // More than there is means all that one may have.
    assert_eq!(budget.take_within(&a, 1000, SOON).unwrap().amount(), 60);
    assert_eq!(budget.held(), 0);
    assert!(lock(&budget.state).queue.is_empty());
}

#[test]
fn turns_are_each_clients_own() {
    let turns = Budget::turns();
    let (a, b) = (Client::known("a"), Client::known("b"));
    let first = turns.try_take(&a, 1).unwrap();
    assert!(turns.take_within(&a, 1, SOON).is_err());
    turns.try_take(&b, 1).unwrap();
    drop(first);
    turns.try_take(&a, 1).unwrap();
}

#[test]
fn s8_strangers_who_wait_for_what_strangers_have_hold_up_nobody_who_was_let_in() {
    let budget = budget();
    let strangers: Vec<_> = (0..3)
        .map(|last| budget.try_take(&stranger(last), 10).unwrap())
        .collect();
    let known = Client::known("a");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| budget.take_within(&stranger(9), 10, Duration::from_secs(20)));
        while !budget.wanted_from(&stranger(0)) {
            std::thread::yield_now();
        }
        assert!(!budget.wanted_from(&known));
        drop(budget.take_within(&known, 60, SOON).unwrap());
        // A stranger does not overtake another.
        assert!(budget.try_take(&stranger(8), 1).is_err());
        drop(strangers);
        assert_eq!(waiting.join().unwrap().unwrap().amount(), 10);
    });
}
