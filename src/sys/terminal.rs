//! The terminal: its width, and reading secrets without echo.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios};

/// Longest secret that can be typed, in bytes.
const LIMIT: usize = 4096;
const INTERRUPT: u8 = 3;
const END: u8 = 4;

/// Prints `prompt` on the terminal and reads one line without echo and without its newline.
///
/// # Errors
/// `Interrupted` on Ctrl-C; anything else means there is no terminal. The terminal settings are always restored.
pub fn ask_secret(prompt: &str) -> io::Result<Vec<u8>> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    terminal.write_all(prompt.as_bytes())?;
    let before = rustix::termios::tcgetattr(terminal.as_fd())?;
    let silent = silenced(&before);
    rustix::termios::tcsetattr(terminal.as_fd(), OptionalActions::Flush, &silent)?;
    let answer = read_line(&mut terminal);
    let restored = rustix::termios::tcsetattr(terminal.as_fd(), OptionalActions::Flush, &before);
    terminal.write_all(b"\n")?;
    restored?;
    answer
}

/// Width of the terminal on standard error in columns, if it is one.
pub fn columns() -> Option<u16> {
    rustix::termios::tcgetwinsize(std::io::stderr()).ok().map(|size| size.ws_col).filter(|columns| *columns > 0)
}

/// Without echo, and with Ctrl-C as a byte: as a signal it would kill the process with echo still off.
fn silenced(before: &Termios) -> Termios {
    let mut silent = before.clone();
    silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
    silent.special_codes[SpecialCodeIndex::VMIN] = 1;
    silent.special_codes[SpecialCodeIndex::VTIME] = 0;
    silent
}

fn read_line(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(LIMIT);
    // One byte at a time: what follows the line is not ours.
    let mut byte = [0_u8; 1];
    loop {
        if input.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match byte[0] {
            b'\n' | b'\r' => return Ok(line),
            INTERRUPT => return Err(io::ErrorKind::Interrupted.into()),
            END if line.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            END => return Ok(line),
            // Backspace removes a whole character, which may be several bytes.
            8 | 127 => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U clears the line, as terminals do.
            21 => line.clear(),
            byte if line.len() < LIMIT => line.push(byte),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the secret is too long")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_return_and_keeps_its_blanks() {
        assert_eq!(read_line(&mut b" a b \nrest".as_slice()).unwrap(), b" a b ");
    }

    #[test]
    fn backspace_and_control_u_edit_the_line() {
        assert_eq!(read_line(&mut b"xx\x15a\xc3\xa9\x7fc\r".as_slice()).unwrap(), b"ac");
    }

    #[test]
    fn control_c_and_a_closed_terminal_are_errors() {
        assert_eq!(read_line(&mut b"ab\x03".as_slice()).unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert!(read_line(&mut b"ab".as_slice()).is_err());
    }
}
