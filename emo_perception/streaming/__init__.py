"""The sliding window, mailboxes, tracks and workers: everything that makes stages live, without ROS."""
