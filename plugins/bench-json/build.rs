//! The linker makes a component of everything unless told not to: this one is to be a plain core module.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=--skip-wit-component");
}
