use proptest::{collection, prelude::*};

use super::*;

// A derivation of a real store.
const REAL: &[u8] = include_bytes!("../../../tests/vectors/libnorm1.drv");

#[test]
fn reads_and_writes_a_real_one() {
    let derivation = Derivation::parse(REAL).unwrap();
    assert_eq!(derivation.to_aterm(), REAL);
    assert!(derivation.outputs["out"].path.starts_with("/nix/store/"));
    assert!(!derivation.environment.is_empty());
}

#[test]
fn every_truncation_and_every_extra_byte_is_refused() {
    for end in 0..REAL.len() {
        assert!(Derivation::parse(&REAL[..end]).is_err(), "{end}");
    }
    let error = Derivation::parse(&[REAL, b"\n"].concat()).unwrap_err();
    assert_eq!(error.offset, REAL.len());
}

#[test]
fn repeated_items_are_refused() {
    let output = r#"("out","/nix/store/x","","")"#;
    let shape = |outputs: &str, inputs: &str, sources: &str, environment: &str| {
        let text =
            format!(r#"Derive([{outputs}],[{inputs}],[{sources}],"s","b",[],[{environment}])"#);
        Derivation::parse(text.as_bytes())
    };
    assert!(shape(output, r#"("d",["out"])"#, r#""s""#, r#"("k","v")"#).is_ok());
    assert!(shape(&format!("{output},{output}"), "", "", "").is_err());
    assert!(shape("", r#"("d",[]),("d",[])"#, "", "").is_err());
    assert!(shape("", r#"("d",["a","a"])"#, "", "").is_err());
    assert!(shape("", "", r#""s","s""#, "").is_err());
    assert!(shape("", "", "", r#"("k","v"),("k","w")"#).is_err());
    assert!(shape("", "", r#""s","#, "").is_err());
    assert!(shape("", "", "", "").is_ok());
}

#[test]
fn paths_are_text_and_length_is_limited() {
    let bytes = b"Derive([],[],[\"\xff\"],\"\",\"\",[],[])";
    assert!(Derivation::parse(bytes).unwrap_err().what.contains("UTF-8"));
    let long = vec![b'x'; DERIVATION_BYTES_MAX + 1];
    assert_eq!(Derivation::parse(&long).unwrap_err().what, "it is too long");
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    collection::vec(
        prop_oneof![any::<u8>(), Just(b'\\'), Just(b'"'), Just(b'\n')],
        0..12,
    )
}

prop_compose! {
    fn derivations()(
        outputs in collection::btree_map("\\PC{0,5}", ("\\PC{0,9}", "[a-z:]{0,9}", "[a-f0-9]{0,9}"), 0..3),
        input_derivations in collection::btree_map("\\PC{0,9}", collection::btree_set("[a-z]{1,4}", 0..3), 0..3),
        input_sources in collection::btree_set("\\PC{0,9}", 0..3),
        system in bytes(),
        builder in bytes(),
        arguments in collection::vec(bytes(), 0..4),
        environment in collection::btree_map(bytes(), bytes(), 0..4),
    ) -> Derivation {
        let output = |(path, hash_algorithm, hash)| Output { path, hash_algorithm, hash };
        let outputs = outputs.into_iter().map(|(name, fields)| (name, output(fields))).collect();
        Derivation { outputs, input_derivations, input_sources, system, builder, arguments, environment }
    }
}

proptest! {
    #[test]
    fn round_trip(derivation in derivations()) {
        prop_assert_eq!(Derivation::parse(&derivation.to_aterm()), Ok(derivation));
    }

    #[test]
    fn a_changed_byte_never_panics(at in 0..REAL.len(), byte: u8) {
        let mut bytes = REAL.to_vec();
        bytes[at] = byte;
        let _ = Derivation::parse(&bytes);
    }
}
