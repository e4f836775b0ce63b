//! The whole of Carga: the real programs on real servers, seen from outside.
//!
//! `app` starts them and asks them; every other file is a group of promises.

mod app;
mod bad_input;
mod broker;
mod contract;
mod dead_letters;
mod fence;
mod happy;
mod kills;
mod localstack;
mod outages;
mod progress;
mod stopping;
