use std::collections::{BTreeMap, BTreeSet};

use super::{DERIVATION_BYTES_MAX, Derivation, DerivationError, Output};

type Result<T> = std::result::Result<T, DerivationError>;

pub(super) fn parse(bytes: &[u8]) -> Result<Derivation> {
    let mut reader = Reader { bytes, offset: 0 };
    if bytes.len() > DERIVATION_BYTES_MAX {
        return reader.fail("it is too long");
    }
    reader.expect(b"Derive(")?;
    let mut outputs = BTreeMap::new();
    reader.list(|reader| reader.output(&mut outputs))?;
    reader.expect(b",")?;
    let mut input_derivations = BTreeMap::new();
    reader.list(|reader| reader.input_derivation(&mut input_derivations))?;
    reader.expect(b",")?;
    let input_sources = reader.text_set()?;
    reader.expect(b",")?;
    let system = reader.string()?;
    reader.expect(b",")?;
    let builder = reader.string()?;
    reader.expect(b",")?;
    let mut arguments = Vec::new();
    reader.list(|reader| {
        arguments.push(reader.string()?);
        Ok(())
    })?;
    reader.expect(b",")?;
    let mut environment = BTreeMap::new();
    reader.list(|reader| reader.variable(&mut environment))?;
    reader.expect(b")")?;
    if reader.offset != bytes.len() {
        return reader.fail("bytes follow the derivation");
    }
    Ok(Derivation {
        outputs,
        input_derivations,
        input_sources,
        system,
        builder,
        arguments,
        environment,
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl Reader<'_> {
    fn fail<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(DerivationError {
            offset: self.offset,
            what: what.into(),
        })
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.offset..).unwrap_or_default()
    }

    fn take_if(&mut self, expected: &[u8]) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.offset += expected.len();
        }
        found
    }

    fn expect(&mut self, expected: &[u8]) -> Result<()> {
        if self.take_if(expected) {
            return Ok(());
        }
        self.fail(format!("`{}` should be here", expected.escape_ascii()))
    }

    fn list(&mut self, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.expect(b"[")?;
        if self.take_if(b"]") {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.take_if(b"]") {
                return Ok(());
            }
            self.expect(b",")?;
        }
    }

    fn string(&mut self) -> Result<Vec<u8>> {
        self.expect(b"\"")?;
        let mut out = Vec::new();
        loop {
            let rest = self.rest();
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) else {
                return self.fail("a string does not end");
            };
            out.extend_from_slice(&rest[..end]);
            let escaped = rest.get(end + 1).copied();
            let closing = rest[end] == b'"';
            self.offset += end + 1;
            if closing {
                return Ok(out);
            }
            let Some(escaped) = escaped else {
                return self.fail("a string does not end");
            };
            self.offset += 1;
            out.push(match escaped {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                other => other,
            });
        }
    }

    fn text(&mut self) -> Result<String> {
        let begin = self.offset;
        String::from_utf8(self.string()?).map_err(|_| DerivationError {
            offset: begin,
            what: "a path or name is not UTF-8".into(),
        })
    }

    fn text_set(&mut self) -> Result<BTreeSet<String>> {
        let mut set = BTreeSet::new();
        self.list(|reader| {
            let text = reader.text()?;
            match set.insert(text) {
                true => Ok(()),
                false => reader.fail("an item comes twice"),
            }
        })?;
        Ok(set)
    }

    fn output(&mut self, outputs: &mut BTreeMap<String, Output>) -> Result<()> {
        self.expect(b"(")?;
        let name = self.text()?;
        self.expect(b",")?;
        let path = self.text()?;
        self.expect(b",")?;
        let hash_algorithm = self.text()?;
        self.expect(b",")?;
        let hash = self.text()?;
        self.expect(b")")?;
        let output = Output {
            path,
            hash_algorithm,
            hash,
        };
        match outputs.insert(name, output) {
            None => Ok(()),
            Some(_) => self.fail("an output comes twice"),
        }
    }

    fn input_derivation(&mut self, inputs: &mut BTreeMap<String, BTreeSet<String>>) -> Result<()> {
        self.expect(b"(")?;
        let path = self.text()?;
        self.expect(b",")?;
        let names = self.text_set()?;
        self.expect(b")")?;
        match inputs.insert(path, names) {
            None => Ok(()),
            Some(_) => self.fail("an input derivation comes twice"),
        }
    }

    fn variable(&mut self, environment: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Result<()> {
        self.expect(b"(")?;
        let name = self.string()?;
        self.expect(b",")?;
        let value = self.string()?;
        self.expect(b")")?;
        match environment.insert(name, value) {
            None => Ok(()),
            Some(_) => self.fail("a variable comes twice"),
        }
    }
}
