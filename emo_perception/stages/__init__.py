"""The steps of perception: typed, ROS-free, each a Stage[In, Out]."""
