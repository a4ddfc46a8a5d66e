"""What a page's plan is made of: the network, the inputs, and what is known of both."""
