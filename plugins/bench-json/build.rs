//! Tells the linker not to make a component: this one has to be a plain core module.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=--skip-wit-component");
}
