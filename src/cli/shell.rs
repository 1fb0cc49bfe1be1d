//! `zba completions` and `zba man`: made from the same definitions as the parser.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man as Page;
use serde_json::json;

use super::error::Error;
use super::output::Output;

/// Print a completion script for a shell
#[derive(Args)]
#[command(after_help = "\
Examples:
  zba completions bash > ~/.local/share/bash-completion/completions/zba
  zba completions fish > ~/.config/fish/completions/zba.fish
  zba completions zsh > \"${fpath[1]}/_zba\"")]
pub(crate) struct Completions {
    /// Shell
    shell: Shell,
}

impl Completions {
    /// Runs the command.
    pub(crate) fn run(self, command: &mut Command, output: Output) -> Result<(), Error> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, "zba", &mut script);
        let script = String::from_utf8_lossy(&script);
        output.show(&json!({"shell": self.shell.to_string(), "script": script}), &script)
    }
}

/// Print the man page, or write one for each command
#[derive(Args)]
#[command(after_help = "\
Examples:
  zba man | man -l -
  zba man --dir ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// Write zba.1, zba-import.1 and so on into this directory, which is made if missing
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Man {
    /// Runs the command.
    pub(crate) fn run(self, command: Command, output: Output) -> Result<(), Error> {
        let command = command.disable_help_subcommand(true);
        let Some(dir) = self.dir else {
            let page = render(command)?;
            return output.show(&json!({"page": page}), &page);
        };
        fs::create_dir_all(&dir).map_err(|error| Error::io("create", &dir, error))?;
        let pages = command.get_subcommands().count() + 1;
        clap_mangen::generate_to(command, &dir).map_err(|error| Error::io("write", &dir, error))?;
        let json = json!({"dir": dir.to_string_lossy(), "pages": pages});
        output.done(&json, format!("wrote {pages} pages to {}", dir.display()))
    }
}

/// The page of the whole program.
fn render(command: Command) -> Result<String, Error> {
    let mut page = Vec::new();
    Page::new(command).render(&mut page).map_err(Error::output)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
