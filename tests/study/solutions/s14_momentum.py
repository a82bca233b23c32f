def sgd_update(w, g, velocity, rate, momentum):
    if velocity is None:
        w -= rate * g
        return
    velocity *= momentum
    velocity -= rate * g
    w += velocity
