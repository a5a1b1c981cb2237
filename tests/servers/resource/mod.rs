mod hyper;
mod raw_socket;
