//! `--dest-creds`: what a process is started with, every user of the machine sees. So credentials can come by the
//! environment and by standard input, and those that came by the command line are warned of.

use std::io::BufRead as _;

const OPTION: &str = "--dest-creds";

/// Reads the option's value; `-` stands for a line of standard input.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| format!("standard input: {error}"))?;
    match line.trim() {
        "" => Err("standard input holds no credentials".to_owned()),
        line => Ok(line.to_owned()),
    }
}

/// Says so if the command line holds credentials.
pub(crate) fn warn_of_arguments() {
    let arguments: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    if hold_credentials(&arguments) {
        eprintln!(
            "warning: every user of this machine can see credentials in arguments; set FIRN_DEST_CREDS, or give \
             them to standard input with {OPTION} -"
        );
    }
}

fn hold_credentials(arguments: &[String]) -> bool {
    let mut arguments = arguments.iter().take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        let value = match argument.strip_prefix(OPTION) {
            Some("") => arguments.next().map(String::as_str),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        };
        if value.is_some_and(|value| value != "-") {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s20_credentials_in_arguments_are_seen() {
        let holds = |text: &str| {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            hold_credentials(&words)
        };
        assert!(holds("firn image push --dest-creds u:p ./x"));
        assert!(holds("firn push ./x --dest-creds=u:p"));
        assert!(!holds("firn push ./x --dest-creds -"));
        assert!(!holds("firn push ./x --dest-creds=- --json"));
        assert!(!holds("firn push -- --dest-creds u:p"));
        assert!(!holds("firn push ./x --storage s"));
    }
}
