//! Running files of commands.
