//! One name of a pattern, and whether it matches a name.

/// One name in a pattern: what stands between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    tokens: Vec<Token>,
    /// Something in it is a wildcard; then the first character must not be a line end, as in a regular
    /// expression's `.`.
    magic: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Unit(u16),
    Any,
    Star,
    Class {
        negated: bool,
        ranges: Vec<(u16, u16)>,
    },
}

impl Segment {
    /// Reads what stands between two slashes.
    pub(crate) fn parse(text: &str) -> Self {
        let units: Vec<u16> = text.encode_utf16().collect();
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(&unit) = units.get(at) {
            at += 1;
            match char::from_u32(u32::from(unit)) {
                Some('\\') => match units.get(at) {
                    Some(&escaped) => {
                        tokens.push(Token::Unit(escaped));
                        at += 1;
                    }
                    None => tokens.push(Token::Unit(unit)),
                },
                Some('*') if tokens.last() == Some(&Token::Star) => {}
                Some('*') => tokens.push(Token::Star),
                Some('?') => tokens.push(Token::Any),
                Some('[') => match class(&units, at) {
                    Some((class, after)) => {
                        tokens.push(class);
                        at = after;
                    }
                    None => tokens.push(Token::Unit(unit)),
                },
                _ => tokens.push(Token::Unit(unit)),
            }
        }
        let magic = tokens.iter().any(|token| !matches!(token, Token::Unit(_)));
        Self { tokens, magic }
    }

    /// Whether a name matches.
    pub(crate) fn matches(&self, name: &[u16]) -> bool {
        let line_end = |unit: &u16| matches!(unit, 0x0a | 0x0d | 0x2028 | 0x2029);
        if self.magic && name.first().is_none_or(line_end) {
            return false;
        }
        // One star is tried at a time: going back to an earlier one cannot help.
        let (mut token, mut at) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match (self.tokens.get(token), name.get(at)) {
                (None, None) => return true,
                (Some(Token::Star), _) => {
                    retry = Some((token, at));
                    token += 1;
                }
                (Some(one), Some(unit)) if one.takes(*unit) => {
                    token += 1;
                    at += 1;
                }
                _ => match retry {
                    Some((star, from)) if from < name.len() => {
                        retry = Some((star, from + 1));
                        token = star + 1;
                        at = from + 1;
                    }
                    _ => return false,
                },
            }
        }
    }
}

impl Token {
    fn takes(&self, unit: u16) -> bool {
        match self {
            Self::Unit(own) => *own == unit,
            Self::Any => true,
            Self::Star => false,
            Self::Class { negated, ranges } => {
                ranges
                    .iter()
                    .any(|(from, to)| (*from..=*to).contains(&unit))
                    != *negated
            }
        }
    }
}

/// A class whose `[` was read, and where it ends; `None` if it is not closed or not sound, and the
/// bracket is only a bracket.
fn class(units: &[u16], start: usize) -> Option<(Token, usize)> {
    let is =
        |unit: Option<&u16>, c: char| unit.is_some_and(|unit| u32::from(*unit) == u32::from(c));
    let mut at = start;
    let negated = is(units.get(at), '!') || is(units.get(at), '^');
    at += usize::from(negated);
    let mut members: Vec<(u16, bool)> = Vec::new();
    loop {
        let unit = *units.get(at)?;
        if is(Some(&unit), ']') && at > start {
            break;
        }
        at += 1;
        if is(Some(&unit), '\\') {
            members.push((*units.get(at)?, true));
            at += 1;
        } else {
            members.push((unit, false));
        }
    }
    Some((
        Token::Class {
            negated,
            ranges: ranges(&members)?,
        },
        at + 1,
    ))
}

/// `a-z` is a range, unless the dash is first, last or escaped. `None` for one that runs backwards.
fn ranges(mut members: &[(u16, bool)]) -> Option<Vec<(u16, u16)>> {
    let dash = u16::from(b'-');
    let mut ranges = Vec::new();
    loop {
        match members {
            [] => return Some(ranges),
            [(from, _), (middle, false), (to, _), rest @ ..] if *middle == dash => {
                if from > to {
                    return None;
                }
                ranges.push((*from, *to));
                members = rest;
            }
            [(unit, _), rest @ ..] => {
                ranges.push((*unit, *unit));
                members = rest;
            }
        }
    }
}
