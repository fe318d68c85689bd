//! Another program, which joins the pool that its first argument names. By the second it knows all
//! functions (`all`), lacks one (`missing`), or has one of other types (`other-types`).

use ringpool_tests::functions::{SHOUT, WHO, register_all, serve};

fn main() -> ringpool::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    match args[2].as_str() {
        "missing" => register_all(WHO)?,
        "other-types" => {
            register_all(SHOUT)?;
            ringpool::register(SHOUT, |loudness: u32| -> u32 { loudness + 1 })?;
        }
        _ => register_all("")?,
    }
    serve(&args[1]);
    Ok(())
}
