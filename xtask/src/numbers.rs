//! Options that are numbers: `--seed 7 --runs 100`.

/// Reads `words` into the numbers of these names.
///
/// # Errors
///
/// What is not understood.
pub(crate) fn read(
    mut words: &[&str],
    numbers: &mut [(&'static str, &mut u32)],
) -> Result<(), String> {
    while let [name, value, rest @ ..] = words {
        let number = value.parse().map_err(|_| format!("{value} is no number"))?;
        let known = numbers.iter_mut().find(|(known, _)| known == name);
        let (_, known) = known.ok_or_else(|| format!("not understood: {name} {value}"))?;
        **known = number;
        words = rest;
    }
    if words.is_empty() { Ok(()) } else { Err(format!("not understood: {}", words[0])) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_names_with_numbers_and_nothing_else() {
        let (mut seed, mut runs) = (1, 2);
        let mut options = [("--seed", &mut seed), ("--runs", &mut runs)];
        assert_eq!(read(&["--seed", "9"], &mut options), Ok(()));
        for wrong in [&["--runs", "many"][..], &["--seed"], &["--else", "1"], &["x"]] {
            assert!(read(wrong, &mut options).is_err(), "{wrong:?}");
        }
        assert_eq!((seed, runs), (9, 2));
    }
}
